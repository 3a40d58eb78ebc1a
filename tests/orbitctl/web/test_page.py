"""The files of the page: what is served is what the lock names, wherever it comes from."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orbitctl.errors import CommandError
from orbitctl.web.page import CONTENT_TYPES, LOCK, MAX_PACKAGE_BYTES, OWN, XTERM, fetch_url, load_page, page_folder

PACKAGES = sorted({name for name, _ in XTERM.values()})


def tarball(name: str, text: str = "") -> bytes:
    """Return a package of npm with the files that the page needs, and one that it does not."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for file in ["package.json", *(file for package, file in XTERM.values() if package == name)]:
            member, data = tarfile.TarInfo(f"package/{file}"), f"{name} {file} {text}".encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class Registry:
    """A page with a lock, and the registry that its packages are in."""

    def __init__(self, folder: Path) -> None:
        self.page, self.cache = folder / "page", folder / "cache" / "orbit"
        self.page.mkdir()
        self.notes: list[str] = []
        self.fetched: list[str] = []
        self.packages: dict[str, bytes] = {}
        entries = {}
        for name in PACKAGES:
            url = f"https://registry.npmjs.org/{name}/-/{name.rpartition('/')[2]}-1.2.3.tgz"
            self.packages[url] = tarball(name)
            digest = base64.b64encode(hashlib.sha512(self.packages[url]).digest()).decode()
            entries[f"node_modules/{name}"] = {"version": "1.2.3", "resolved": url, "integrity": f"sha512-{digest}"}
        (self.page / LOCK).write_text(json.dumps({"lockfileVersion": 3, "packages": entries}))
        for name in OWN:
            (self.page / name).write_text(name)

    def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self.packages:
            raise OSError("no route to host")
        return self.packages[url]

    def load(self, **environ: str) -> dict[str, str]:
        found = load_page(self.page, str(self.cache), environ, self.notes.append, self.fetch)
        return {path: file.data.decode() for path, file in found.items()}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_packages_are_fetched_once(registry: Registry) -> None:
    """The first time each package is fetched, which is said; later it is in the cache, private."""
    served = registry.load()
    assert served["/vendor/xterm.mjs"] == "@xterm/xterm lib/xterm.mjs "
    assert served["/"] == served["/index.html"] == "index.html"
    assert sorted(served) == sorted(["/", *(f"/{name}" for name in OWN), *XTERM])
    assert (len(registry.fetched), len(registry.notes)) == (len(PACKAGES), len(PACKAGES))
    assert "fetching @xterm/xterm 1.2.3 from registry.npmjs.org into" in " ".join(registry.notes)
    assert registry.load() == served
    assert len(registry.fetched) == len(PACKAGES)
    assert stat.S_IMODE(registry.cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in registry.cache.iterdir()} == {0o600}
    assert len(list(registry.cache.iterdir())) == len(PACKAGES)


@pytest.mark.parametrize("damage", [b"", b"other"])
def test_a_damaged_cache_is_fetched_again(registry: Registry, damage: bytes) -> None:
    """What lies in the cache is served only if it is what the lock names."""
    served = registry.load()
    for path in registry.cache.iterdir():
        path.write_bytes(damage)
    assert registry.load() == served
    assert len(registry.fetched) == 2 * len(PACKAGES)


def test_a_link_in_the_cache_is_not_followed(registry: Registry, tmp_path: Path) -> None:
    """A link in a package's place is replaced, and what it leads to stays."""
    registry.load()
    other = tmp_path / "other"
    other.write_text("keep")
    for path in registry.cache.iterdir():
        path.unlink()
        path.symlink_to(other)
    registry.load()
    assert other.read_text() == "keep"
    assert not any(path.is_symlink() for path in registry.cache.iterdir())


def test_another_package_is_refused(registry: Registry) -> None:
    """A registry that answers with something else is not believed, and nothing of it is kept."""
    for url, data in registry.packages.items():
        registry.packages[url] = data + b"x"
    with pytest.raises(CommandError, match="its checksum is another one"):
        registry.load()
    assert not registry.cache.exists()


def test_without_a_connection_the_next_step_is_said(registry: Registry) -> None:
    """Offline the error names the package and its URL, and what to do without a connection."""
    registry.packages.clear()
    with pytest.raises(CommandError, match=r"cannot fetch @xterm/\S+ 1\.2\.3 from https://\S+: no route") as error:
        registry.load()
    assert str(registry.cache) in error.value.hint
    assert "npm ci" in error.value.hint


def test_a_package_that_was_put_there_is_served(registry: Registry) -> None:
    """What the hint of the error says works: packages that are put into the cache by hand are used."""
    registry.cache.mkdir(parents=True, mode=0o700)
    for url, data in registry.packages.items():
        (registry.cache / url.rpartition("/")[2]).write_bytes(data)
    assert registry.load()["/vendor/xterm.css"]
    assert registry.fetched == []


def test_a_cache_that_cannot_be_written_is_done_without(registry: Registry) -> None:
    """Without a cache the page is served all the same, fetched each time."""
    registry.cache.parent.write_text("a file")
    registry.load()
    registry.load()
    assert len(registry.fetched) == 2 * len(PACKAGES)


def test_what_npm_has_installed_is_served(registry: Registry) -> None:
    """Beside a checkout's page nothing is fetched, if npm has installed the lock's versions; others are not used."""
    modules = registry.page / "node_modules"
    for name, file in XTERM.values():
        (modules / name / file).parent.mkdir(parents=True, exist_ok=True)
        (modules / name / file).write_text("installed")
        (modules / name / "package.json").write_text('{"version": "1.2.3"}')
    assert registry.load()["/vendor/xterm.mjs"] == "installed"
    assert registry.fetched == []
    (modules / "@xterm" / "xterm" / "package.json").write_text('{"version": "1.2.4"}')
    assert registry.load()["/vendor/xterm.mjs"] == "@xterm/xterm lib/xterm.mjs "


def test_another_registry_is_asked(registry: Registry) -> None:
    """Where npm's own variable names another registry, packages are from there; the checksum is the same."""
    mirror = "https://mirror.example/npm"
    registry.packages = {
        url.replace("https://registry.npmjs.org", mirror): data for url, data in registry.packages.items()
    }
    registry.load(npm_config_registry=f"{mirror}/")
    assert all(url.startswith(mirror) for url in registry.fetched)


def test_a_package_without_the_file_is_an_error(registry: Registry) -> None:
    """A lock whose packages have not what the page needs is named."""
    lock: Any = json.loads((registry.page / LOCK).read_text())
    entry = lock["packages"]["node_modules/@xterm/xterm"]
    data = registry.packages[entry["resolved"]] = tarball("@xterm/other")
    entry["integrity"] = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    (registry.page / LOCK).write_text(json.dumps(lock))
    with pytest.raises(CommandError, match="@xterm/xterm has no"):
        registry.load()


@pytest.mark.parametrize("url", ["http://registry.npmjs.org/x", "file:///etc/passwd", "ftp://x"])
def test_nothing_is_fetched_without_encryption(url: str) -> None:
    """Only HTTPS is spoken."""
    with pytest.raises(OSError, match="without encryption"):
        fetch_url(url)


def test_the_lock_of_the_page_is_whole() -> None:
    """Each package of examples/web has a URL of npm's registry and a sha512, and each of our files is there."""
    folder = page_folder()
    packages = json.loads((folder / LOCK).read_bytes())["packages"]
    for name in PACKAGES:
        entry = packages[f"node_modules/{name}"]
        assert entry["resolved"].startswith(f"https://registry.npmjs.org/{name}/-/")
        assert entry["integrity"].startswith("sha512-")
    for name in OWN:
        assert (folder / name).is_file()
        assert name.rpartition(".")[2] in CONTENT_TYPES
    beside = {
        name for name in os.listdir(str(folder)) if name not in ("README.md", "node_modules", "package.json", LOCK)
    }
    assert beside == {*OWN}
    assert MAX_PACKAGE_BYTES > 1_500_000
