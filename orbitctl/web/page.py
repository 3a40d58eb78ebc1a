"""The files of the page: ours, and those of xterm.js, of exactly the versions in examples/web/package-lock.json.

`npm ci` in a checkout puts xterm.js into examples/web/node_modules. Everybody else gets its packages from npm's
registry once: they lie in the cache as they came, and are compared with the lock's checksum (sha512) each time, so
that what is served is what the lock names. Nothing is unpacked to the disk.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import hmac
import io
import os
import tarfile
import tempfile
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from orbit_os.files import UnsafeFolder, open_private, private_folder
from orbit_protocol.text import path_text
from orbitctl.errors import CommandError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

OWN = ("index.html", "style.css", "app.js", "connection.js", "terminal.js", "themes.js")
LOCK = "package-lock.json"
XTERM = {
    "/vendor/xterm.mjs": ("@xterm/xterm", "lib/xterm.mjs"),
    "/vendor/xterm.css": ("@xterm/xterm", "css/xterm.css"),
    "/vendor/addon-fit.mjs": ("@xterm/addon-fit", "lib/addon-fit.mjs"),
    "/vendor/addon-unicode11.mjs": ("@xterm/addon-unicode11", "lib/addon-unicode11.mjs"),
}
"""By path of the page: the package, and the file in it."""
CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
}
REGISTRY = "https://registry.npmjs.org"
REGISTRY_VARIABLE = "npm_config_registry"
MAX_PACKAGE_BYTES = 16 << 20
_MAX_UNPACKED_BYTES = 64 << 20
_TIMEOUT_SECS = 30.0

Fetch = Callable[[str], bytes]
"""Returns what a URL has. Raises: OSError."""


class File(Struct, frozen=True):
    """A file as it is served."""

    content_type: str
    data: bytes

    @property
    def tag(self) -> str:
        """Its ETag (RFC 9110, 8.8.3)."""
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'


class Package(Struct, frozen=True):
    """A package of the lock; `resolved` is where it is, `integrity` its checksum."""

    version: str = ""
    resolved: str = ""
    integrity: str = ""


class _Lock(Struct, frozen=True):
    packages: dict[str, Package] = field(default_factory=dict)


def page_folder() -> Traversable:
    """Return where the page is: inside the package in a wheel, beside it in a checkout. Raises: CommandError."""
    from importlib.resources import files

    package = files("orbitctl")
    for candidate in (package / "web" / "files", package / ".." / "examples" / "web"):
        if (candidate / LOCK).is_file():
            return candidate
    raise CommandError("the page is missing from this installation", hint="Install orbit-sessions again.")


def load_page(
    folder: Traversable, cache_folder: str, environ: Mapping[str, str], note: Callable[[str], None], fetch: Fetch
) -> dict[str, File]:
    """Return all files by their path.

    Args:
        folder: Where the page is.
        cache_folder: Where packages are kept.
        environ: The environment, which may name another registry.
        note: Called with a sentence when something is fetched.
        fetch: Downloads.

    Raises:
        CommandError: Something is missing, and cannot be fetched.
    """
    found = {f"/{name}": _file(name, (folder / name).read_bytes()) for name in OWN}
    found["/"] = found["/index.html"]
    packages = msgspec.json.decode((folder / LOCK).read_bytes(), type=_Lock).packages
    tarballs: dict[str, Mapping[str, bytes]] = {}
    for path, (name, file) in XTERM.items():
        package = packages[f"node_modules/{name}"]
        data = _installed(folder, name, package, file)
        if data is None:
            if name not in tarballs:
                tarballs[name] = _unpack(name, _tarball(name, package, cache_folder, environ, note, fetch))
            data = tarballs[name][file]
        found[path] = _file(path, data)
    return found


def _file(name: str, data: bytes) -> File:
    return File(CONTENT_TYPES[name.rpartition(".")[2]], data)


def _installed(folder: Traversable, name: str, package: Package, file: str) -> bytes | None:
    """Return a file of a package that npm has installed beside the page, of the lock's version; None without one."""
    installed = folder / "node_modules" / name
    try:
        version = msgspec.json.decode((installed / "package.json").read_bytes(), type=Package).version
        return (installed / file).read_bytes() if version == package.version else None
    except (OSError, msgspec.DecodeError):
        return None


def _tarball(
    name: str,
    package: Package,
    cache_folder: str,
    environ: Mapping[str, str],
    note: Callable[[str], None],
    fetch: Fetch,
) -> bytes:
    """Return a package as the registry has it, out of the cache or fetched and put there. Raises: CommandError."""
    url = _url(package, environ)
    path = os.path.join(cache_folder, os.path.basename(urllib.parse.urlsplit(package.resolved).path))
    cached = _read(path)
    if cached is not None and _fits(cached, package):
        return cached
    note(f"fetching {name} {package.version} from {urllib.parse.urlsplit(url).netloc} into {path_text(cache_folder)}")
    hint = (
        f"With a connection it is fetched once. Without one, put {url} from elsewhere into "
        f"{path_text(cache_folder)}, or run `npm ci` in examples/web of a checkout."
    )
    try:
        data = fetch(url)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise CommandError(f"cannot fetch {name} {package.version} from {url}: {reason}", hint=hint) from error
    if not _fits(data, package):
        raise CommandError(
            f"{url} is not the package that this version of Orbit is for: its checksum is another one",
            hint=f"Nothing was kept. {hint}",
        )
    with contextlib.suppress(OSError, UnsafeFolder):  # it is fetched again the next time
        _write(path, data)
    return data


def _url(package: Package, environ: Mapping[str, str]) -> str:
    """Return where a package is, at the registry that the environment names as npm's own variable does."""
    registry = environ.get(REGISTRY_VARIABLE, "").rstrip("/")
    if registry.startswith("https://") and package.resolved.startswith(f"{REGISTRY}/"):
        return registry + package.resolved.removeprefix(REGISTRY)
    return package.resolved


def _fits(data: bytes, package: Package) -> bool:
    """Return whether a package is the one of the lock (Subresource Integrity, sha512 alone)."""
    algorithm, _, expected = package.integrity.partition("-")
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return algorithm == "sha512" and hmac.compare_digest(digest, expected)


def _read(path: str) -> bytes | None:
    try:
        with open(open_private(path, os.O_RDONLY), "rb") as file:
            return file.read(MAX_PACKAGE_BYTES + 1)
    except (OSError, UnsafeFolder):
        return None


def _write(path: str, data: bytes) -> None:
    """Write a file atomically, private. Raises: OSError, UnsafeFolder."""
    folder = private_folder(os.path.dirname(path))
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)  # of mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        # Without a sync: half a file after a power cut has another checksum, and is fetched again.
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _unpack(name: str, tarball: bytes) -> Mapping[str, bytes]:
    """Return the files of a package that the page needs. Raises: CommandError."""
    wanted = {f"package/{file}": file for package, file in XTERM.values() if package == name}
    found: dict[str, bytes] = {}
    # Its checksum has been compared, so it is what the lock was made for; the limit is against a lock that was changed.
    with gzip.open(io.BytesIO(tarball)) as packed:
        unpacked = packed.read(_MAX_UNPACKED_BYTES)
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for member in archive:
            if member.name in wanted and member.isfile() and (file := archive.extractfile(member)) is not None:
                found[wanted[member.name]] = file.read()
    if missing := wanted.values() - found.keys():
        raise CommandError(f"{name} has no {min(missing)}", hint="Install orbit-sessions again.")
    return found


def fetch_url(url: str) -> bytes:
    """Return what a URL has, over HTTPS. Raises: OSError."""
    import urllib.request  # here: with a full cache nothing is fetched

    if not url.startswith("https://"):
        raise OSError("it is not fetched without encryption")
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECS) as answer:  # noqa: S310  # the scheme has been looked at
        data: bytes = answer.read(MAX_PACKAGE_BYTES + 1)
    if len(data) > MAX_PACKAGE_BYTES:
        raise OSError(f"it is larger than {MAX_PACKAGE_BYTES} bytes")
    return data
