"""The program `orbitctl`.

Until `isolate` has run, nothing but sys, os and `orbit_os.python` may be imported: `python -m` puts the current folder
first on sys.path, and PYTHONPATH comes next, before the standard library. A `click.py` in there would be executed.
"""

from __future__ import annotations

import os
import sys

from orbit_os.python import isolate, open_closed_streams

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run the command line, with nothing of the user's project on the import path, and leave with its exit code."""
    try:
        open_closed_streams()
        isolate()
        handle_interrupts()
        from orbitctl.fast import run_fast

        code = run_fast(sys.argv[1:])
        if code is not None:
            _exit(code)
        from orbitctl.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # later than in `run`, which handles it
        code = _INTERRUPTED
    sys.exit(code)


def _exit(code: int) -> None:
    """Leave at once if all output is written: taking the interpreter down is a tenth of the time of a list."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)
    os._exit(code)


def handle_interrupts() -> None:
    """Have Ctrl-C end this process at each moment, unless SIGINT is ignored, as in a background job of a script."""
    # What `signal` wraps in enums, whose import takes longer than a list of sessions.
    import _signal  # type: ignore[import-not-found]  # typeshed has `signal` alone

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as Python does; while a module is being imported, exit at once.

    importlib releases its locks in callbacks of weak references. What is raised there is printed and dropped, and the
    command would go on without the Ctrl-C (importlib/_bootstrap.py, `_get_module_lock`). A quarter of a second of most
    commands is imports.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os._exit(_INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
