"""Start Python processes of ours so that they import nothing of the user's project, and no file takes stderr's place.

There are two ways into an interpreter of ours. A user runs the entry point, with any PYTHONPATH and
current folder: `isolate` removes those from sys.path; the standard streams may be closed
(`open_closed_streams`). Or one of our programs starts another:
`python_command` has the options that do the same from the first import on. What Python imports by
itself before the first line of an entry point (PYTHONHOME, a sitecustomize module, and the few
modules of the standard library that a script or `-m` needs) comes before us.
"""

from __future__ import annotations

# Nothing else is imported here: until `isolate` has run, it could come from the user's project.
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from typing import Literal, TextIO

ISOLATED = ("-E", "-P")
"""Ignore the PYTHON* variables, and never put the script's or the current folder on sys.path (python(1))."""

_carried: list[str] = []
"""Entries of sys.path that Orbit is imported from and that `ISOLATED` would leave out; set by `isolate`."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this installation, isolated from the user's project."""
    if not _carried:
        return [sys.executable, *ISOLATED, "-m", module, *arguments]
    run = f"import runpy, sys; sys.path[:0] = {_carried!r}; runpy.run_module({module!r}, None, '__main__', True)"
    return [sys.executable, *ISOLATED, "-c", run, *arguments]


def isolate() -> None:
    """Remove PYTHONPATH's entries and the current folder from sys.path, and silence warnings.

    An entry point calls this before it imports anything that is not in the standard library: a
    `click.py` in the current folder would be executed instead of click.

    Where Orbit itself is imported by PYTHONPATH or from the current folder (`pip install --target`, a
    checkout), those entries stay, since it and its dependencies are found nowhere else.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installation = {ours}
    if os.path.basename(ours) == "protocol":
        installation.add(os.path.dirname(ours))  # a checkout: `orbitd` and `orbitctl` lie beside `protocol`
    site_folders = _site_folders()
    installation -= site_folders  # what is there is found without PYTHONPATH
    here = _current_folder()
    if not sys.flags.safe_path and sys.path:
        # For `-m` and `-c` the first entry is the current folder, for a script the script's own. site.py ran
        # before it was inserted: a folder that a .pth file names too is there a second time.
        first = sys.path[0] or here
        if first in installation and sys.path.count(first) == 1:
            _carried.append(first)
        elif first == here:
            del sys.path[0]
    if not sys.flags.ignore_environment and os.environ.get("PYTHONPATH"):
        _remove_pythonpath(installation, site_folders, here)
    if sys.warnoptions or os.environ.get("PYTHONWARNINGS"):
        import warnings  # not at the top: a warnings.py of the user's project would be found first

        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def _remove_pythonpath(installation: set[str], site_folders: set[str], here: str) -> None:
    # site.py has made the entries absolute.
    entries = [os.path.normpath(os.path.join(here, entry)) for entry in os.environ["PYTHONPATH"].split(os.pathsep)]
    if not installation.isdisjoint(entries):
        _carried.extend(entry for entry in entries if entry in sys.path and entry not in _carried)
        return
    # site.py adds no folder twice: one of its own that PYTHONPATH names is at that place only, and needed there.
    for entry in entries:
        if entry not in site_folders and entry in sys.path:
            sys.path.remove(entry)


def _site_folders() -> set[str]:
    """Return the folders of the standard library and of installed packages."""
    import site  # imported by every start without -S, so that this executes nothing

    library = os.path.dirname(os.path.abspath(os.__file__))
    return {library, os.path.join(library, "lib-dynload"), *site.getsitepackages(), site.getusersitepackages()}


def open_closed_streams() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed, as an entry point's first step.

    Otherwise the next file or socket gets its number, and whatever prints writes into that. What is printed to a
    closed stream is dropped; reading from a closed stdin fails with EBADF, as it should.
    """
    # Python has None for a stream that was closed when the interpreter started. In ascending order, since open(2)
    # returns the lowest number that is free.
    if sys.stdin is None:
        sys.stdin = _open_null(os.O_WRONLY, "r")
    if sys.stdout is None:
        sys.stdout = _open_null(os.O_RDWR, "w")
    if sys.stderr is None:
        sys.stderr = _open_null(os.O_RDWR, "w")


def _open_null(flags: int, mode: Literal["r", "w"]) -> TextIO:
    descriptor = os.open(os.devnull, flags)
    os.set_inheritable(descriptor, True)  # else a program that we exec would find it closed again
    return open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


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
