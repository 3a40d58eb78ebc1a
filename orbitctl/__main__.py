"""The program `orbitctl`."""

from __future__ import annotations

import sys

from orbit_os.python import isolate


def main() -> None:
    """Run the command line, with nothing of the user's project on the import path, and leave with its exit code."""
    isolate()
    try:
        from orbitctl.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed while modules were still being imported
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
