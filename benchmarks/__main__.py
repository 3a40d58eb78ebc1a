"""The command: run figures and print them."""

from __future__ import annotations

import sys

import click

from benchmarks import table
from benchmarks.bench import new_bench
from benchmarks.figures import FIGURES
from benchmarks.machine import facts
from benchmarks.results import Outcome


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(list(FIGURES)), help="Run this figure; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--list", "as_list", is_flag=True, help="Print the figures and their bars, and run nothing.")
@click.option("--quick", is_flag=True, help="Show that everything runs; the numbers mean nothing.")
def main(only: tuple[str, ...], as_json: bool, as_list: bool, quick: bool) -> None:
    """Measure Orbit's figures beside their baselines, as ratios in one run on this machine.

    Exits with 0 whether or not a bar is met: how fast a machine is today is no failure.
    """
    if as_list:
        for figure in FIGURES.values():
            print(f"{figure.name:<10} {figure.promise}")
        return
    outcomes: list[Outcome] = []
    with new_bench(quick=quick) as bench:
        machine = facts(bench)
        if not as_json:
            table.print_facts(machine)
        for name in only or FIGURES:
            print(f"measuring {name} ...", file=sys.stderr)
            outcomes += FIGURES[name].run(bench)
    if as_json:
        print(table.to_json(machine, outcomes, quick=quick))
    else:
        table.print_table(outcomes)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
