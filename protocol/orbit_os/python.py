"""Start Python processes of ours so that they import nothing of the user's project.

There are two ways into an interpreter of ours. A user runs the entry point, with any PYTHONPATH and
current folder: `isolate` removes those from sys.path. Or one of our programs starts another:
`python_command` has the options that do the same from the first import on. PYTHONHOME and a
sitecustomize module take effect before any code of ours, and are not handled.
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

    An entry point calls this before it imports anything that is not in the standard library: a
    `click.py` in the current folder would be executed instead of click.

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
        import warnings  # not at the top: a warnings.py of the user's project would be found first

        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def name_process(name: str) -> None:
    """Set the name of this process in ps(1) and pgrep(1); on Linux only (/proc/self/comm, proc(5))."""
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
