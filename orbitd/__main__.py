"""The program `orbitd`."""

from __future__ import annotations

from orbit_os.python import fill_standard_descriptors, isolate, name_process


def main() -> None:
    """Run the daemon, with nothing of the user's project on the import path."""
    fill_standard_descriptors()
    isolate()
    name_process("orbitd")
    from orbitd.cli import cli

    cli(prog_name="orbitd")


if __name__ == "__main__":
    main()
