"""Outcomes as text for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from benchmarks.results import Number, Outcome, Result, Skipped

HEADINGS = ("figure", "measured", "value", "spread", "baseline", "value", "spread", "ratio", "bar", "")
VERDICTS = {True: "met", False: "NOT MET", None: ""}


def print_facts(facts: Mapping[str, str]) -> None:
    """Print the machine's facts."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    print()


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print one line an outcome, columns aligned, and the reasons of what was left out below."""
    rows = [HEADINGS, *(_row(one) for one in outcomes if isinstance(one, Result))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for one in outcomes:
        if isinstance(one, Skipped):
            print(f"skipped: {one.figure}: {one.what}: {one.reason}")
        elif one.note:
            print(f"note: {one.figure}: {one.number.name}: {one.note}")


def to_json(facts: Mapping[str, str], outcomes: Sequence[Outcome], *, quick: bool) -> str:
    """Return everything as one JSON document."""
    found = {"machine": facts, "quick": quick, "results": [_plain(one) for one in outcomes]}
    return msgspec.json.format(msgspec.json.encode(found)).decode()


def _plain(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Skipped):
        return {**asdict(outcome), "skipped": True}
    return {**asdict(outcome), "ratio": outcome.ratio, "met": outcome.met}


def _row(result: Result) -> tuple[str, ...]:
    unable = (result.unable, "-" if result.unable else "", "")
    baseline = unable if result.baseline is None else _cells(result.baseline)
    ratio = "" if result.ratio is None else f"{result.ratio:.3f}" if result.ratio < 0.1 else f"{result.ratio:.2f}"
    bar = "" if result.bar is None else f"{result.bar}{f' {result.number.unit}' if result.bar.of_value else ''}"
    return (result.figure, *_cells(result.number), *baseline, ratio, bar, VERDICTS[result.met])


def _cells(number: Number) -> tuple[str, str, str]:
    spread = "" if number.low == number.high else f"{_digits(number.low)}..{_digits(number.high)}"
    return number.name, f"{_digits(number.value)} {number.unit}", spread


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
