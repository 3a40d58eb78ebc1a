"""docs/reliability.md promises nothing that no test shows."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


@functools.cache
def names_below(folder: str) -> set[str]:
    """Return the names of the tests in a folder."""
    return {
        node.name
        for path in (ROOT / folder).rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_each_fault_names_tests_that_exist() -> None:
    """Every row of the tables ends in the names of tests, and each of them is there."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 40
    missing = []
    for row in rows:
        last = row.strip("| ").rsplit("|", 1)[-1]
        assert "`test_" in last, row
        folder = "tests/faults"
        for name in re.findall(r"`(tests?[/_]\w+)`", last):
            if name.startswith("tests/"):
                folder = name  # of the names behind it
            elif name not in names_below(folder):
                missing.append(name)
    assert missing == []


def test_each_test_of_a_fault_is_named() -> None:
    """What this folder shows stands on the page."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    own = {node for node in names_below("tests/faults") if not node.startswith("test_each_")}
    assert own - named - {"test_the_ledger_notices_what_is_wrong"} == set()
