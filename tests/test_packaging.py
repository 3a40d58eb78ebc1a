"""What is published: the files of wheel and sdist, and the requirements that an installation has."""

from __future__ import annotations

import subprocess
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from needs import needs
from support import build

ROOT = Path(__file__).resolve().parent.parent
LIVE_PLATFORMS = ("manylinux_2_27_x86_64", "manylinux_2_27_aarch64", "macosx_13_0_arm64", "macosx_13_0_x86_64")
DATA = "orbit_sessions-0.1.0.data"
DIST_INFO = "orbit_sessions-0.1.0.dist-info"


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{DIST_INFO}/METADATA").decode())


def requirements(wheel: Path) -> list[str]:
    """Return the names of what the wheel requires without an extra."""
    found = metadata(wheel).get_all("Requires-Dist", [])
    return [text.split("<")[0].split(">")[0] for text in found if "extra ==" not in text]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout."""
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip makes a wheel of, where none that is published fits."""
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "xzf", str(sdist), "-C", str(folder)], check=True)
    return folder / "orbit_sessions-0.1.0"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist, for this machine."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_the_files_of_the_wheel(wheel: Path) -> None:
    """A wheel has the four packages, with units and migrations, and neither tests nor generators of documents."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert sorted({name.split("/")[0] for name in names}) == [
        *("orbit_os", "orbit_protocol", DATA, DIST_INFO, "orbitctl", "orbitd"),
    ]
    assert sorted(name for name in names if not name.endswith(".py")) == [
        "orbit_os/py.typed",
        "orbit_os/shell_integration/orbit.bash",
        "orbit_os/shell_integration/orbit.fish",
        "orbit_os/shell_integration/orbit.zsh",
        "orbit_os/shell_integration/start.bash",
        "orbit_os/shell_integration/zsh/.zshenv",
        "orbit_protocol/py.typed",
        f"{DATA}/data/share/man/man1/orbitctl.1",
        f"{DIST_INFO}/METADATA",
        f"{DIST_INFO}/RECORD",
        f"{DIST_INFO}/WHEEL",
        f"{DIST_INFO}/entry_points.txt",
        f"{DIST_INFO}/licenses/LICENSE",
        "orbitctl/py.typed",
        "orbitctl/units/launchd/dev.orbit.orbitd.plist",
        "orbitctl/units/systemd/orbitd.service",
        "orbitctl/units/systemd/orbitd.socket",
        "orbitctl/web/files/app.js",
        "orbitctl/web/files/connection.js",
        "orbitctl/web/files/index.html",
        "orbitctl/web/files/package-lock.json",
        "orbitctl/web/files/style.css",
        "orbitctl/web/files/terminal.js",
        "orbitctl/web/files/themes.js",
        "orbitd/history/schema.sql",
        "orbitd/py.typed",
        "orbitd/store/migrations/0001_initial.sql",
        "orbitd/store/migrations/0002_programs.sql",
        "orbitd/store/migrations/0003_checksums.sql",
        "orbitd/store/migrations/0004_labels.sql",
        "orbitd/store/migrations/0005_trash.sql",
        "orbitd/store/migrations/0006_events.sql",
    ]
    assert [name for name in names if "test" in name or "generate" in name or "build_hooks" in name] == []


def test_the_files_of_the_sdist(unpacked: Path) -> None:
    """An sdist has what the repository has: all that is needed to build, test and document it."""
    assert sorted(path.name for path in unpacked.iterdir()) == [
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "benchmarks",
        "docs",
        "examples",
        "launchd",
        "orbitctl",
        "orbitd",
        "protocol",
        "pyproject.toml",
        "systemd",
        "tests",
    ]
    inner = [path.relative_to(unpacked) for path in unpacked.glob("*/**/*") if path.is_file()]
    assert sorted(str(path) for path in inner if path.suffix != ".py") == [
        ".ci/run",
        "benchmarks/node_client.mjs",
        "docs/architecture.md",
        "docs/commands.md",
        "docs/history.md",
        "docs/orbitctl.1",
        "docs/protocol.md",
        "docs/reliability.md",
        "docs/remote.md",
        "docs/replication.md",
        "docs/service.md",
        "docs/shell.md",
        "examples/javascript/demo.js",
        "examples/javascript/orbit.d.ts",
        "examples/javascript/orbit.js",
        "examples/javascript/package-lock.json",
        "examples/javascript/package.json",
        "examples/javascript/test/daemon.js",
        "examples/javascript/test/description.test.js",
        "examples/javascript/test/events.test.js",
        "examples/javascript/test/libraries.test.js",
        "examples/javascript/test/orbit.test.js",
        "examples/javascript/test/types.ts",
        "examples/javascript/tsconfig.json",
        "examples/web/README.md",
        "examples/web/app.js",
        "examples/web/connection.js",
        "examples/web/index.html",
        "examples/web/package-lock.json",
        "examples/web/package.json",
        "examples/web/style.css",
        "examples/web/terminal.js",
        "examples/web/themes.js",
        "launchd/dev.orbit.orbitd.plist",
        "orbitctl/py.typed",
        "orbitd/history/schema.sql",
        "orbitd/py.typed",
        "orbitd/store/migrations/0001_initial.sql",
        "orbitd/store/migrations/0002_programs.sql",
        "orbitd/store/migrations/0003_checksums.sql",
        "orbitd/store/migrations/0004_labels.sql",
        "orbitd/store/migrations/0005_trash.sql",
        "orbitd/store/migrations/0006_events.sql",
        "protocol/orbit_os/py.typed",
        "protocol/orbit_os/shell_integration/orbit.bash",
        "protocol/orbit_os/shell_integration/orbit.fish",
        "protocol/orbit_os/shell_integration/orbit.zsh",
        "protocol/orbit_os/shell_integration/start.bash",
        "protocol/orbit_os/shell_integration/zsh/.zshenv",
        "protocol/orbit_protocol/py.typed",
        "systemd/orbitd.service",
        "systemd/orbitd.socket",
        "tests/faults/shim.c",
        "tests/fixtures/schema-1.sql",
        "tests/fixtures/schema-2.sql",
        "tests/fixtures/schema-3.sql",
        "tests/fixtures/schema-4.sql",
        "tests/fixtures/schema-5.sql",
        "tests/history/workday.msgpack.zst",
        "tests/web/browser.js",
        "tests/xterm/package-lock.json",
        "tests/xterm/package.json",
        "tests/xterm/terminal.js",
    ]


def test_the_facts_about_the_package(wheel: Path) -> None:
    """License (PEP 639), versions of Python and both programs stand in the wheel."""
    found = metadata(wheel)
    assert (found["Name"], found["License-Expression"], found["License-File"]) == ("orbit-sessions", "MIT", "LICENSE")
    assert found["Requires-Python"] == ">=3.11"
    versions = [text for text in found.get_all("Classifier", []) if "Python ::" in text]
    assert versions == [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)]
    with zipfile.ZipFile(wheel) as archive:
        programs = archive.read(f"{DIST_INFO}/entry_points.txt").decode().split()
    assert [word for word in programs if ":" in word] == ["orbitctl.__main__:main", "orbitd.__main__:main"]


def test_live_sessions_are_required_where_they_can_run(wheel: Path) -> None:
    """The wheel requires pyghostty if it is for a platform that pyghostty has wheels for, and only then."""
    is_live = any(wheel.name.endswith(f"-py3-none-{platform}.whl") for platform in LIVE_PLATFORMS)
    assert is_live or wheel.name.endswith("-py3-none-any.whl")
    assert ("pyghostty" in requirements(wheel)) == is_live
    assert ("pyghostty<0.2,>=0.1.3" in metadata(wheel).get_all("Requires-Dist", [])) == is_live


@needs(linux=True)
@pytest.mark.parametrize("source", ["checkout", "sdist"])
def test_other_machines_require_no_live_sessions(unpacked: Path, tmp_path: Path, source: str) -> None:
    """On a Linux that takes no manylinux wheels, as one with musl, everything else is required, for any platform."""
    (tmp_path / "_manylinux.py").write_text("def manylinux_compatible(*_):\n    return False\n")  # PEP 600
    tree = unpacked if source == "sdist" else ROOT
    wheel = build("wheel", tree, tmp_path, PYTHONPATH=str(tmp_path))
    assert wheel.name == "orbit_sessions-0.1.0-py3-none-any.whl"
    assert requirements(wheel) == ["aiosqlite", "click", "jsonrpcserver", "msgspec", "uvloop", "zstandard"]
