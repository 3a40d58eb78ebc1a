"""Orbit's figures, each measured beside its baseline in one run on one machine.

    python -m benchmarks            every figure
    python -m benchmarks --list     their names and bars
    python -m benchmarks --quick    the same with counts that only show that it works

Rules of the room: what is compared is run by turns, in several rounds, after a warm-up,
and medians are printed with how far the rounds lay apart. What serves is a process of its
own, never the one that measures. Everything lies in one temporary folder on a real disk,
and nothing is left behind.
"""
