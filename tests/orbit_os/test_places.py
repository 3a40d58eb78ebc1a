"""Where files are by default, and which homes are refused."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit_os.places import HomeUnset, HomeUnusable, Places
from orbit_os.sockets import MAX_PATH_BYTES

ROOT = 0
VARIABLES = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def all_of(places: Places) -> list[str]:
    """Return the files that are looked for, once they may be made."""
    found = [places.config_file, places.database, places.state_folder, places.socket]
    places.check()
    return found


def refused(read: Callable[[Places], object], environ: dict[str, str]) -> HomeUnusable:
    """Return why what has been derived may not be made."""
    places = Places(environ)
    read(places)
    with pytest.raises(HomeUnusable) as caught:
        places.check()
    return caught.value


def below(folder: str) -> list[str]:
    share, state = f"{folder}/.local/share/orbit", f"{folder}/.local/state/orbit"
    return [f"{folder}/.config/orbit/config.toml", f"{share}/sessions.db", state, f"{state}/orbitd.sock"]


@pytest.fixture
def no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have passwd know no uid."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch, home: Path) -> Callable[[Path, int], None]:
    """Return what makes a folder appear to belong to a uid; the caller is 1000, and owns all else in `home`."""
    owners: dict[str, int] = {}
    stat_of = os.stat

    def fake_stat(path: str) -> os.stat_result:
        found = list(stat_of(path))
        if str(path).startswith(str(home)):
            found[stat.ST_UID] = owners.get(str(path), 1000)
        return os.stat_result(found)

    monkeypatch.setattr("orbit_os.places.os.stat", fake_stat)
    monkeypatch.setattr("orbit_os.places.os.geteuid", lambda: 1000)
    return lambda path, uid: owners.update({str(path): uid})


def test_everything_is_below_home(home: Path) -> None:
    """Without any other variable; nothing is made."""
    assert all_of(Places({"HOME": str(home)})) == below(str(home))
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("spelling", ["{}/", "{}//", "/{}", "{}/.", "{}/x/.."])
def test_a_home_has_one_spelling(home: Path, spelling: str) -> None:
    """Both programs compare paths, and make short names of long ones."""
    assert all_of(Places({"HOME": spelling.format(home)})) == below(str(home))


def test_variables_of_the_specification(home: Path) -> None:
    """An absolute value counts, a relative one is ignored; HOME is not looked at where none is needed."""
    given = {name: str(home / name) for name in VARIABLES} | {"XDG_RUNTIME_DIR": f"{home}//run/"}
    found = all_of(Places({"HOME": "relative", **given}))
    assert found == [
        f"{home}/XDG_CONFIG_HOME/orbit/config.toml",
        f"{home}/XDG_DATA_HOME/orbit/sessions.db",
        f"{home}/XDG_STATE_HOME/orbit",
        f"{home}/run/orbit/orbitd.sock",
    ]
    relative = dict.fromkeys((*VARIABLES, "XDG_RUNTIME_DIR"), "relative")
    assert all_of(Places({"HOME": str(home), **relative})) == below(str(home))


@pytest.mark.parametrize("length", [46, 70, 76, 90, 200, 1000])
@pytest.mark.parametrize("has_runtime", [True, False])
def test_the_socket_fits_whatever_home_is(home: Path, length: int, has_runtime: bool) -> None:
    """Its path is short in the runtime folder, or one of a folder in /tmp; the same for every program."""
    long = str(home)
    while len(long) < length:
        long += "/" + "h" * min(200, length - len(long) - 1)
    os.makedirs(long)
    environ = {"HOME": long, **({"XDG_RUNTIME_DIR": str(home / "run")} if has_runtime else {})}
    socket = Places(environ).socket
    assert len(os.fsencode(socket)) <= MAX_PATH_BYTES
    assert socket == Places(environ).socket
    natural = str(home / "run/orbit") if has_runtime else f"{long}/.local/state/orbit"
    fits = len(f"{natural}/orbitd.sock") <= MAX_PATH_BYTES
    assert os.path.dirname(socket) == (natural if fits else f"/tmp/orbit-{os.getuid()}")


def test_a_home_of_bytes(home: Path) -> None:
    """A HOME that is not UTF-8, or has blanks and newlines, is one like any other."""
    odd = os.fsdecode(os.fsencode(home) + b"/caf\xe9 \n")
    os.mkdir(odd)
    assert all_of(Places({"HOME": odd})) == below(odd)


@pytest.mark.usefixtures("no_entry")
@pytest.mark.parametrize("environ", [{}, {"HOME": ""}])
def test_no_home_at_all(environ: dict[str, str], home: Path) -> None:
    """It is said what is missing; the configuration is an empty one, and what variables name needs no home."""
    places = Places(environ)
    for read in (lambda: places.database, lambda: places.state_folder, lambda: places.socket):
        with pytest.raises(HomeUnset, match=rf"^HOME is not set, and uid {os.geteuid()} has no home in passwd$"):
            read()
    assert places.config_file == os.devnull
    with pytest.raises(HomeUnset):
        places.expand("~/x")
    given = Places({**environ, "XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)})
    assert (given.database, given.state_folder) == (f"{home}/orbit/sessions.db", f"{home}/orbit")


def test_passwd_is_asked_only_where_home_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry counts for an empty HOME too."""
    asked = []
    entry = pwd.struct_passwd(("me", "x", 0, 0, "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (asked.append(uid), entry)[1])
    assert all_of(Places({"HOME": str(home)})) == below(str(home))
    assert asked == []
    assert all_of(Places({"HOME": ""})) == below(str(home))
    assert asked == [os.geteuid()]


@pytest.mark.parametrize("value", ["~", "home", "./home", "$HOME", "~/home"])
def test_a_relative_home(value: str) -> None:
    """It is refused by name, for the configuration too."""
    for read in (lambda: Places({"HOME": value}).config_file, lambda: Places({"HOME": value}).database):
        with pytest.raises(HomeUnusable, match=r"^HOME is not an absolute path: ") as caught:
            read()
        assert caught.value.hint.startswith("Set HOME to your own home")


def test_a_home_that_is_a_file(home: Path) -> None:
    """It is refused by name, and so is what is below a file."""
    (home / "file").touch()
    with pytest.raises(HomeUnusable, match="/file, which is not a folder"):
        Places({"HOME": f"{home}/file"}).database  # noqa: B018
    with pytest.raises(HomeUnusable, match="/file/x, which cannot be used: Not a directory"):
        Places({"HOME": f"{home}/file/x"}).database  # noqa: B018


def test_a_home_that_does_not_exist(home: Path) -> None:
    """Paths in it can be named; it is refused before something is made in it, and only where it is needed."""
    missing = f"{home}/missing"
    places = Places({"HOME": missing})
    assert [places.config_file, places.database, places.state_folder, places.socket] == below(missing)
    with pytest.raises(HomeUnusable, match=f"^HOME is {missing}, which does not exist$"):
        places.check()
    named = {"XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)}
    assert all_of(Places({"HOME": missing, **named}))[1] == f"{home}/orbit/sessions.db"
    assert str(refused(lambda places: places.expand("~/x"), {"HOME": missing, **named})).endswith("does not exist")


def test_the_home_of_another_user(home: Path, owned: Callable[[Path, int], None]) -> None:
    """Variable, folder and owner are named, and what to do; to name a path in it is no harm."""
    owned(home, 1001)
    reads: list[Callable[[Places], object]] = [
        lambda places: places.config_file,
        lambda places: places.database,
        lambda places: places.expand("~/x"),
    ]
    for read in reads:
        error = refused(read, {"HOME": str(home)})
        assert str(error) == f"HOME is {home}, which belongs to uid 1001, not to you (uid 1000)"
        assert "sudo -H" in error.hint


def test_a_folder_of_another_user_in_ones_home(home: Path, owned: Callable[[Path, int], None]) -> None:
    """The nearest folder that is there is looked at: what is made in it would be in theirs."""
    (home / ".local").mkdir()
    owned(home / ".local", 1001)
    error = refused(lambda places: places.database, {"HOME": str(home)})
    assert str(error).startswith(f"HOME is {home}, where {home}/.local belongs to uid 1001")
    assert error.hint.startswith(f"Make {home}/.local/share/orbit yourself. Or: Set HOME")
    places = Places({"HOME": str(home)})
    assert places.config_file == f"{home}/.config/orbit/config.toml"
    places.check()


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_another_users_folder_in_a_variable(home: Path, owned: Callable[[Path, int], None], variable: str) -> None:
    """What sudo keeps of these is refused as HOME is."""
    theirs = home / "theirs"
    theirs.mkdir()
    owned(theirs, 1001)
    with pytest.raises(HomeUnusable, match=f"^{variable} is {theirs}, which belongs to uid 1001") as caught:
        all_of(Places({"HOME": str(home), variable: str(theirs)}))
    assert variable in caught.value.hint


def test_another_users_runtime_folder_is_passed_over(home: Path, owned: Callable[[Path, int], None]) -> None:
    """XDG_RUNTIME_DIR is kept by su; the specification has it belong to the user."""
    theirs = home / "run"
    theirs.mkdir()
    owned(theirs, 1001)
    assert Places({"HOME": str(home), "XDG_RUNTIME_DIR": str(theirs)}).socket == below(str(home))[-1]


def test_a_runtime_folder_is_not_made_in_another_users(home: Path, owned: Callable[[Path, int], None]) -> None:
    """One that is missing, in a folder of theirs or of their uid, is none: it would be ours in their place."""
    theirs = home / "theirs"
    theirs.mkdir()
    owned(theirs, 1001)
    for missing in (theirs / "run", theirs / "a" / "run", "/run/user/1001"):
        assert Places({"HOME": str(home), "XDG_RUNTIME_DIR": str(missing)}).socket == below(str(home))[-1]
    assert Places({"HOME": str(home), "XDG_RUNTIME_DIR": f"{home}/run"}).socket == f"{home}/run/orbit/orbitd.sock"


@pytest.mark.parametrize(
    ("mode", "is_writable", "is_taken"),
    [(0o1777, True, True), (0o775, True, True), (0o777, True, False), (0o755, False, False)],
)
def test_a_home_of_the_system(
    home: Path,
    owned: Callable[[Path, int], None],
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    is_writable: bool,
    is_taken: bool,
) -> None:
    """A folder of root's, as /tmp, is a home in containers, where we can make something and others cannot move it."""
    owned(home, ROOT)
    home.chmod(mode)
    monkeypatch.setattr("orbit_os.places.os.access", lambda _path, _mode: is_writable)
    if is_taken:
        assert all_of(Places({"HOME": str(home)})) == below(str(home))
    else:
        error = refused(lambda places: places.database, {"HOME": str(home)})
        assert str(error).startswith(f"HOME is {home}, which belongs to uid 0")


def test_a_home_of_the_system_with_folders_of_ones_own(
    home: Path, owned: Callable[[Path, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that is mounted into such a home serves, though nothing else can be made there."""
    (home / ".local" / "share").mkdir(parents=True)
    owned(home, ROOT)
    owned(home / ".local", ROOT)
    monkeypatch.setattr("orbit_os.places.os.access", lambda _path, _mode: False)
    places = Places({"HOME": str(home)})
    assert places.config_file == f"{home}/.config/orbit/config.toml"
    assert places.database == f"{home}/.local/share/orbit/sessions.db"
    places.check()
    error = refused(lambda places: places.state_folder, {"HOME": str(home)})
    assert f"where {home}/.local belongs to uid 0" in str(error)


def test_a_typed_path_is_made_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/` is HOME; what is relative is in the current folder."""
    monkeypatch.chdir(home)
    places = Places({"HOME": f"{home}/"})
    (home / "x").mkdir()
    assert [places.expand(path) for path in ("~/a", "~//a//b", "b/../c", "//d//e")] == [
        f"{home}/a",
        f"{home}/a/b",
        f"{home}/c",
        "/d/e",
    ]
