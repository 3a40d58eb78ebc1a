"""What a figure hands back: numbers with their spread, held against a bar."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measured number.

    Args:
        name: What was measured.
        value: The median of the rounds, or what another function of this module makes of them.
        unit: Of value, low and high: `us`, `ms`, `/s`, `bytes`, `MB`.
        low: The least of the rounds.
        high: The greatest of the rounds.
    """

    name: str
    value: float
    unit: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What is promised: at most or at least `limit`, of the ratio where there is a baseline, else of the value.

    Args:
        of_value: It is of the value, also where a baseline stands beside it.
    """

    kind: Literal["<=", ">=", "<"]
    limit: float
    of_value: bool = False

    def is_met(self, number: float) -> bool:
        """Return whether a number keeps the promise."""
        return {"<=": number <= self.limit, ">=": number >= self.limit, "<": number < self.limit}[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table.

    Args:
        figure: The name of the figure in the registry.
        number: What was measured of Orbit.
        baseline: What it is held against; None where the bar is a plain number.
        bar: The promise; None where the line is there for information.
        note: What a reader has to know besides, in a few words.
        unable: Who stands in the baseline's place and cannot do this at all.
    """

    figure: str
    number: Number
    baseline: Number | None = None
    bar: Bar | None = None
    note: str = ""
    unable: str = ""

    @property
    def ratio(self) -> float | None:
        """The number as a multiple of the baseline."""
        if self.baseline is None or not self.baseline.value:
            return None
        return self.number.value / self.baseline.value

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.bar is None:
            return None
        return self.bar.is_met(self.number.value if self.ratio is None or self.bar.of_value else self.ratio)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A line that could not be measured on this machine."""

    figure: str
    what: str
    reason: str


Outcome = Result | Skipped


def summary(name: str, unit: str, rounds: Sequence[float]) -> Number:
    """Return the median of rounds and their range."""
    return Number(name=name, value=statistics.median(rounds), unit=unit, low=min(rounds), high=max(rounds))


def mean(name: str, unit: str, rounds: Sequence[float]) -> Number:
    """Return the mean of rounds and their range: for what comes in some of them only, as checkpoints do."""
    return Number(name=name, value=statistics.fmean(rounds), unit=unit, low=min(rounds), high=max(rounds))


def worst(name: str, unit: str, rounds: Sequence[float]) -> Number:
    """Return the greatest of rounds and their range."""
    return Number(name=name, value=max(rounds), unit=unit, low=min(rounds), high=max(rounds))


def exactly(name: str, unit: str, value: float) -> Number:
    """Return a number that does not vary, such as a size."""
    return summary(name, unit, [value])
