"""`session.screen`: what the picture's process is asked for, and sessions that have none."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from orbit_protocol.errors import InvalidParams
from orbit_protocol.params import ClientTerminal, SessionScreen, Theme
from orbitd.screens import messages as m
from orbitd.screens.model import Colors, Cut
from orbitd.store.snapshots import SavedScreen
from sessions_support import MOMENT, Sessions


async def asked(sessions: Sessions, **params: object) -> m.Render:
    """Ask for a screen, and return what the screens process was asked for."""
    await sessions.methods.screen(SessionScreen(id="one", **params))  # type: ignore[arg-type]
    return sessions.template.processes[-1].sent(m.Render)[-1]


async def test_a_part_is_cut_where_the_picture_is_drawn(sessions: Sessions) -> None:
    """Lines are cut out before they are drawn; without them there is nothing to cut."""
    await sessions.run()
    await sessions.print(b"hello")
    assert (await asked(sessions)).cut is None
    assert (await asked(sessions, first_line=-5)).cut == Cut(first=-5)
    assert (await asked(sessions, lines=0)).cut == Cut(lines=0)


async def test_colours_are_those_asked_for_then_the_clients(sessions: Sessions) -> None:
    """Each colour is the theme's, else that of the terminal that owned the size last, else left to the emulator."""
    await sessions.run()
    assert (await asked(sessions, format="svg")).colors == Colors()
    terminal = ClientTerminal(foreground="#010101", background="#020202", palette=["#030303", "#040404"])
    await sessions.attach(terminal=terminal)
    theirs = Colors(foreground=(1, 1, 1), background=(2, 2, 2), palette=((3, 3, 3), (4, 4, 4)))
    assert (await asked(sessions, format="svg", cursor=False)).colors == theirs
    theme = Theme(background="#ffffff", cursor="#0000ff", palette=["#990000"])
    assert (await asked(sessions, format="html", theme=theme)).colors == Colors(
        foreground=(1, 1, 1), background=(255, 255, 255), cursor=(0, 0, 255), palette=((153, 0, 0), (4, 4, 4))
    )


async def test_what_is_too_large_is_the_callers_to_change(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that would be too large is no fault of the session: the caller is asked for fewer lines."""
    live = await sessions.run()
    await sessions.print(b"hello")
    await sessions.methods.screen(SessionScreen(id="one"))
    process = sessions.template.processes[-1]
    send = process.send
    too_large = {"data": b"", "too_large": "there is too much to draw as svg"}
    monkeypatch.setattr(process, "send", lambda each: send(replace(each, **too_large)))
    with pytest.raises(InvalidParams, match="there is too much to draw as svg") as raised:
        await sessions.methods.screen(SessionScreen(id="one", format="svg"))
    assert raised.value.hint == "Ask for fewer `lines`."
    assert live.picture.status == "ok"


async def test_the_screen_of_an_external_session(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app has saved of a session of its own is drawn as a terminal would draw it."""
    sessions.store.add("one", last_saved_at=MOMENT)
    sessions.store.snapshots.append(("one", 0, b"hello"))
    sessions.store.sizes.append((80, 24))
    load = sessions.store.load_latest_screen

    async def load_opaque(session_id: str) -> SavedScreen | None:
        saved = await load(session_id)
        assert saved is not None
        return replace(saved, snapshot=replace(saved.snapshot, format="opaque"), native_state=None)

    monkeypatch.setattr(sessions.store, "load_latest_screen", load_opaque)
    assert "hello" in (await sessions.methods.screen(SessionScreen(id="one"))).data
