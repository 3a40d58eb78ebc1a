"""The program `orbitctl`.

Until `isolate` has run, nothing but sys, os and `orbit_os.python` may be imported: `python -m` puts the current folder
first on sys.path, and PYTHONPATH comes next, before the standard library. A `click.py` in there would be executed.
"""

from __future__ import annotations

import sys

from orbit_os.python import isolate, open_closed_streams


def main() -> None:
    """Run the command line, with nothing of the user's project on the import path, and leave with its exit code."""
    try:
        open_closed_streams()
        isolate()
        from orbitctl.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were being imported; later `run` handles it
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
