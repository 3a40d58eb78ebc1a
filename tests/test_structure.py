"""Rules about the tree itself: who imports whom, what is documented, what is current."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orbit_protocol import VERSION
from orbit_protocol.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "protocol/orbit_protocol": {
        "orbit_os",
        "orbitd",
        "orbitctl",
        "asyncio",
        "socket",
        "click",
        "aiosqlite",
        "logging",
        "rich",
    },
    "protocol/orbit_os": {"socket", "orbit_protocol", "orbitd", "orbitctl", "msgspec", "asyncio", "logging", "rich"},
    "orbitd": {"orbitctl", "rich"},
    "orbitctl": {"orbitd", "aiosqlite"},
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_what_it_must_not(package: str) -> None:
    """The protocol does no I/O, the daemon and the command line do not import each other."""
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): FORBIDDEN[package] & set(imported(path)) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}


def imports_by_module() -> dict[str, set[str]]:
    """Return which modules of ours each module imports, inside functions and for type checkers too."""
    files = {}
    for folder in FORBIDDEN:
        top = (ROOT / folder).parent
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(top).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        found = graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                # `from package import module` imports the module; `from module import name` the module named first.
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found.update((names & files.keys()) or {str(node.module)})
        found &= files.keys() - {module}
    return graph


def test_no_module_imports_in_a_circle() -> None:
    """The imports of all modules have an order: graphlib finds it, or names the circle."""
    order = list(graphlib.TopologicalSorter(imports_by_module()).static_order())
    assert len(order) > 100


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


def test_every_skip_names_what_is_missing() -> None:
    """Tests are skipped by `needs` alone, so that the reason is always what the machine lacks."""
    skips = re.compile(r"\b(skipif|importorskip|skipTest|pytest\.skip|mark\.skip)\b")
    paths = set((ROOT / "tests").rglob("*.py")) - {ROOT / "tests" / "needs.py", Path(__file__)}
    assert [str(path.relative_to(ROOT)) for path in sorted(paths) if skips.search(path.read_text())] == []


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


NUMBERED = re.compile(r"\b(?:SELECT|INSERT|UPDATE|DELETE)\b.*\?[0-9]", re.DOTALL)

DIRECT = {"os": {"fsync", "fdatasync", "chmod", "fchmod", "lchmod"}, "fcntl": {"flock", "lockf"}}


def test_odd_file_systems_are_known_in_one_place() -> None:
    """What CIFS, FAT, NFS or macOS answer otherwise is called through `orbit_os.files`, which knows what it means."""
    found = []
    for path in sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py")):
        if path == ROOT / "protocol" / "orbit_os" / "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                continue
            if node.attr in DIRECT.get(node.value.id, ()):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.value.id}.{node.attr}")
    assert found == []


def test_sql_numbers_no_parameters() -> None:
    """`?1` with a sequence warns on Python 3.12.0 to 3.12.3 (gh-117995), so SQL has plain `?` or names."""
    numbered = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in FORBIDDEN
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NUMBERED.search(node.value)
    ]
    assert numbered == []


def test_what_ci_runs_once_is_there() -> None:
    """.ci/run leaves tests out on the newer Pythons by name: a name that is none would leave out nothing."""
    listed = re.search(r"^once=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert listed
    assert [name for name in listed[1].split() if not (ROOT / name).exists()] == []


NOT_INSPECTED = """
import gc, importlib, sys
for named in sys.argv[1:]:
    module, _, name = named.partition(":")
    kind = getattr(importlib.import_module(module), name)
    if not any(type(each).__name__ == "StructInfo" for each in gc.get_referents(kind)):
        print(named)
"""


def decoded_types() -> Iterator[str]:
    """Return the types, as module:name, that orbitd decodes to without a decoder that is made at the import."""
    for path in (ROOT / "orbitd").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "msgspec.convert":
                yield f"{module}:{ast.unparse(node.args[1])}"
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".decode"):
                for word in node.keywords:
                    if word.arg == "type":
                        yield f"{module}:{ast.unparse(word.value)}"


def test_msgspec_has_inspected_what_threads_decode_to() -> None:
    """Two threads that decode to a Struct for the first time at once end the process (msgspec 0.22)."""
    found = set(decoded_types())
    assert "orbitd.store.rows:SnapshotHead" in found
    generic = "orbitd.store.validation:base"  # one of two types, whose decoders rows.py has
    command = [sys.executable, "-c", NOT_INSPECTED, *sorted(found - {generic})]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("", "")
