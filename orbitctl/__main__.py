"""The program `orbitctl`.

Until `isolate` has run, only modules of the standard library and `orbit_os` may be imported: `python -m` puts the
current folder first on sys.path and PYTHONPATH comes next, so a `click.py` of the user's project would be executed.
"""

from __future__ import annotations

import sys

from orbit_os.python import isolate


def main() -> None:
    """Run the command line, with nothing of the user's project on the import path, and leave with its exit code."""
    isolate()  # before any import of ours that leads to click or msgspec
    try:
        from orbitctl.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were being imported; later `run` handles it
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
