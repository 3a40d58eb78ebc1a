"""Rules about the tree itself: who imports whom, what is documented, what is current."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import VERSION
from protocol.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "protocol": {"orbitd", "orbitctl", "asyncio", "socket", "click", "rich", "aiosqlite", "logging"},
    "orbitd": {"orbitctl"},
    "orbitctl": {"orbitd"},
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_what_it_must_not(package: str) -> None:
    """The protocol does no I/O, and daemon and client know nothing of each other."""
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): FORBIDDEN[package] & set(imported(path)) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_generated_documents_are_current() -> None:
    """The committed documents say what the code does."""
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_the_version_is_the_same_everywhere() -> None:
    """The package's metadata and the protocol tell the same version."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_every_method_is_documented() -> None:
    """docs/protocol.md has a section for every method of the table."""
    page = (ROOT / "docs" / "protocol.md").read_text()
    assert [name for name in METHODS if f"### `{name}`" not in page] == []


def test_every_test_says_what_it_shows() -> None:
    """Each test's docstring states a behaviour."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
