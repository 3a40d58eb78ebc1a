"""How a Python process of ours starts: nothing of the user's project reaches its imports.

Two ways lead into an interpreter of ours. A user runs the entry point, with whatever
PYTHONPATH and current folder there are: `isolate` removes those from sys.path. Or one of our
programs starts another: `python_command` gives it the options that do the same from the first
import on. PYTHONHOME and a sitecustomize module take effect before any code of ours.
"""

from __future__ import annotations

# Nothing else is imported here: until `isolate` has run, it could come from the user's project.
import os
import sys

ISOLATED = ("-E", "-P")
"""Ignore the PYTHON* variables, and never put the script's or the current folder on sys.path (python(1))."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this installation, isolated from the user's project."""
    return [sys.executable, *ISOLATED, "-m", module, *arguments]


def isolate() -> None:
    """Remove PYTHONPATH's entries and the current folder from sys.path, and silence warnings.

    To be called by an entry point before it imports anything that is not in the standard library:
    a `click.py` in the folder that a user stands in would be executed in the place of click.

    A folder that our own packages are imported from stays, so that a checkout can be run by PYTHONPATH.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    library = os.path.dirname(os.path.abspath(os.__file__))
    kept = {ours, library, os.path.join(library, "lib-dynload")}
    if os.path.basename(ours) == "protocol":
        kept.add(os.path.dirname(ours))  # a checkout: `orbitd` and `orbitctl` lie beside `protocol`
    here = _current_folder()
    if not sys.flags.safe_path and sys.path and sys.path[0] in {"", here} - kept:
        del sys.path[0]  # put there by `-m` and `-c`; for a script it is the script's own folder
    if not sys.flags.ignore_environment:
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep):
            # site.py has made the entries absolute and dropped what stands there twice.
            absolute = os.path.normpath(os.path.join(here, entry))
            for form in {entry, absolute} - kept:
                if form in sys.path:
                    sys.path.remove(form)
    if sys.warnoptions or os.environ.get("PYTHONWARNINGS"):
        import warnings  # after sys.path is clean

        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def name_process(name: str) -> None:
    """Give this process the name that ps(1) and pgrep(1) know it by; Linux alone has a file for it (proc(5))."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write(name)
    except OSError:
        return


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # deleted; nothing can be imported from it
        return ""
