"""What may be written where a path is configured."""

from __future__ import annotations

import pytest

from orbit_protocol.paths import path_mistake
from orbit_protocol.settings import SettingsError, named_path, parse_settings


@pytest.mark.parametrize("path", ["/x", "/x/$HOME/y", "~/x", "~/x/../y", "//x", "/x/~/y", "~//x"])
def test_an_absolute_path_and_one_below_home_are_right(path: str) -> None:
    """Behind their first character they are taken as they are, wherever they are written."""
    assert (path_mistake(path), path_mistake(path, typed=True)) == ("", "")


@pytest.mark.parametrize("path", ["x", "./x", "../x", "x/y.db", "%h/x", "file:x"])
def test_a_relative_path_may_only_be_typed(path: str) -> None:
    """Programs that read it from a file are in folders of their own; who types it is in one."""
    assert path_mistake(path) == f"must be absolute or begin with `~/`: {path}"
    assert path_mistake(path, typed=True) == ""


WRONG = [
    ("", "must not be empty"),
    ("/x\0y", "must not contain NUL"),
    ("/x/", "must name a file, not a folder: /x/"),
    ("~/", "must name a file, not a folder: ~/"),
    (":memory:", "must be absolute or begin with `~/`: :memory:"),
    *(
        (path, f"must be absolute or begin with `~/`; variables and homes of other users are not expanded: {path}")
        for path in ("~", "~other/x", "$HOME/x", "${HOME}/x", "$XDG_RUNTIME_DIR/x")
    ),
]


@pytest.mark.parametrize(("path", "mistake"), WRONG)
def test_what_no_place_takes(path: str, mistake: str) -> None:
    """What a shell would have expanded, and what is no file, is refused where it is typed too."""
    assert (path_mistake(path), path_mistake(path, typed=True)) == (mistake, mistake)


@pytest.mark.parametrize("path", [path for path, _ in WRONG if path and "\0" not in path] + ["x", "x/y.db"])
@pytest.mark.parametrize("key", ["session.database_path", "daemon.socket_path"])
def test_the_configuration_is_refused_by_file_and_key(key: str, path: str) -> None:
    """Every path of the configuration is checked when it is read."""
    table, name = key.split(".")
    with pytest.raises(SettingsError, match=rf"^/etc/o\.toml: `{key}` must "):
        parse_settings(f'[{table}]\n{name} = "{path}"\n'.encode(), "/etc/o.toml")


def test_a_flag_wins_over_a_variable_and_each_is_named() -> None:
    """An empty variable names nothing, an empty flag is a mistake."""
    environ = {"V": "/variable"}
    assert named_path("--flag", "relative", "V", environ) == "relative"
    assert named_path("--flag", None, "V", environ) == "/variable"
    assert named_path("--flag", None, "V", {"V": ""}) is None
    with pytest.raises(SettingsError, match=r"^V must be absolute"):
        named_path("--flag", None, "V", {"V": "relative"})
    with pytest.raises(SettingsError, match=r"^--flag must not be empty"):
        named_path("--flag", "", "V", environ)
