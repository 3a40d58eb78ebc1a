"""The program `orbitd`."""

from __future__ import annotations

from orbit_os.python import isolate, name_process, open_closed_streams


def main() -> None:
    """Run the daemon, with nothing of the user's project on the import path."""
    open_closed_streams()
    isolate()
    name_process("orbitd")
    from orbitd.log_writer import guard_stderr

    guard_stderr()
    from orbitd.cli import cli

    cli(prog_name="orbitd")


if __name__ == "__main__":
    main()
