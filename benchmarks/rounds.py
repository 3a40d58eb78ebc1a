"""Comparing fairly: everything is warmed up, then runs by turns, and each round turns the order round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

Measure = Callable[[], float]


def by_turns(measures: Mapping[str, Measure], rounds: int, *, warm_up: int = 1) -> dict[str, list[float]]:
    """Run every measure once a round and return what each gave.

    Args:
        measures: Each returns one number.
        rounds: How often each counts.
        warm_up: How often each runs before, uncounted.
    """
    order = list(measures)
    found: dict[str, list[float]] = {name: [] for name in order}
    for turn in range(-warm_up, rounds):
        for name in order:
            value = measures[name]()
            if turn >= 0:
                found[name].append(value)
        order.reverse()
    return found


def medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each series."""
    return {name: statistics.median(series) for name, series in found.items()}
