"""orbitd's side of a search: the child's start, its end, who waits, and what an answer says."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orbit_protocol.errors import InvalidParams, SessionNotFound, StorageCorrupt, WorkspaceNotFound
from orbit_protocol.params import HistorySearch
from orbitd.history import search as search_module
from orbitd.history.database import DamagedHistory
from orbitd.history.search import HistorySearcher
from orbitd.history.search_messages import FromChild, Part
from orbitd.history.text_blocks import Line
from orbitd.manager import SessionManager
from orbitd.screens.client import Child, Screens
from orbitd.screens.messages import Limits
from search_support import Filled

FOR_EVER = HistorySearch(query="^(a|aa)+$", regex=True)
"""It tries every way to divide a line of 60 a and a sign."""

WAIT_SECS = 30.0


class CountedScreens(Screens):
    """A template whose forks are counted; without one, searches start an interpreter."""

    def __init__(self, *, has_template: bool) -> None:
        super().__init__(Limits(lines=1000, size=1 << 20))
        self.children: list[Child] = []
        self.reports: asyncio.Queue[int] = asyncio.Queue()
        self._has_template = has_template

    def fork_search(self) -> Child | None:
        """Fork a child and remember it, and what the template reports of it: its process's id, and 0 at its end."""
        child = super().fork_search() if self._has_template else None
        if child is not None:
            self.children.append(child)
            started = child.started

            def report(pid: int) -> None:
                started(pid)
                self.reports.put_nowait(pid)

            child.started = report  # type: ignore[method-assign]
        return child


class Searching:
    """A searcher with a real store and real children."""

    def __init__(self, manager: SessionManager, filled: Filled, screens: CountedScreens) -> None:
        self.manager, self.filled, self.screens = manager, filled, screens
        self.damaged: list[str] = []
        self.flushed: list[list[str]] = []
        self.is_flushed = True
        self.live_ids: list[str] = []
        self.searcher = HistorySearcher(
            manager,
            filled.history,
            screens,
            flush=self._flush,
            live_ids=lambda: self.live_ids,
            note_damage=self._note_damage,
        )

    async def _flush(self, session_ids: Iterable[str]) -> bool:
        self.flushed.append(list(session_ids))
        return self.is_flushed

    def _note_damage(self, error: DamagedHistory) -> None:
        self.damaged.append(str(error))

    async def children_ended(self) -> None:
        """Wait until the template has reported the end of each child."""
        async with asyncio.timeout(WAIT_SECS):
            while self.screens.children:
                if await self.screens.reports.get() == 0:
                    self.screens.children.pop()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[int]:
    """Return a queue that gets the number of hits of each part with hits that a child sends."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    take = search_module._Run.take

    def noted(run: search_module._Run, message: FromChild) -> None:
        take(run, message)
        if isinstance(message, Part) and message.hits:
            queue.put_nowait(len(message.hits))

    monkeypatch.setattr(search_module._Run, "take", noted)
    return queue


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """Return a history of two sessions: of the older lines of the second one takes for ever."""
    found = Filled(tmp_path)
    one, two = found.session("one"), found.session("two")
    found.row(one, [Line(number=number, at=5000 + number, text="a" * number) for number in range(1, 4)])
    found.row(two, [Line(number=0, at=1000, text="a" * 60 + "!")])
    yield found
    found.connection.close()


@pytest.fixture(params=["template", "interpreter"])
def has_template(request: pytest.FixtureRequest) -> bool:
    """Return whether there is a template to fork."""
    return bool(request.param == "template")


@pytest.fixture
async def searching(filled: Filled, has_template: bool) -> AsyncIterator[Searching]:
    """Return a searcher."""
    async with SessionManager.open(filled.path) as manager:
        screens = CountedScreens(has_template=has_template)
        yield Searching(manager, filled, screens)
        await screens.close()


async def test_a_page_and_the_next(searching: Searching) -> None:
    """Pages go on by their cursors, and the children end."""
    search = searching.searcher.search
    first = await search(HistorySearch(query="a", limit=2))
    assert ([hit.text for hit in first.hits], first.complete) == (["aaa", "aa"], True)
    assert [(hit.name, hit.line, hit.at.timestamp()) for hit in first.hits] == [("one", 3, 5.003), ("one", 2, 5.002)]
    rest = await search(HistorySearch(query="a", cursor=first.next_cursor))
    assert [hit.text for hit in rest.hits] == ["a", "a" * 60 + "!"]
    assert (rest.next_cursor, rest.complete) == (None, True)
    await searching.children_ended()


async def test_an_expression_that_takes_for_ever(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before it hangs is returned, with a cursor; where that is in the hanging block, it is an error."""
    monkeypatch.setattr(search_module, "KILL_SECS", 0.5)
    search = searching.searcher.search
    page = await search(FOR_EVER)
    assert [hit.text for hit in page.hits] == ["aaa", "aa", "a"]
    assert not page.complete
    assert page.next_cursor is not None
    with pytest.raises(InvalidParams, match="too slow"):
        await search(HistorySearch(query=FOR_EVER.query, regex=True, cursor=page.next_cursor))
    with pytest.raises(InvalidParams, match="too slow"):
        await search(HistorySearch(query=FOR_EVER.query, regex=True, until=datetime.fromtimestamp(2, UTC)))
    await searching.children_ended()


async def test_a_call_that_is_cancelled_ends_its_child(searching: Searching, found: asyncio.Queue[int]) -> None:
    """The child is killed with the call, and another search has its place."""
    calls = [asyncio.create_task(searching.searcher.search(FOR_EVER)) for _ in range(3)]
    async with asyncio.timeout(WAIT_SECS):
        assert [await found.get() for _ in range(2)] == [3, 3]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await searching.children_ended()
    assert (await searching.searcher.search(HistorySearch(query="aaa"))).hits


@pytest.mark.parametrize("has_template", ["template"], indirect=True)
async def test_two_search_at_once(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third search waits until one of two has ended."""
    monkeypatch.setattr(search_module, "KILL_SECS", 0.5)
    calls = [asyncio.create_task(searching.searcher.search(FOR_EVER)) for _ in range(3)]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert len(searching.screens.children) <= 2 + len(done)
    assert waiting
    assert [len(page.hits) for page in await asyncio.gather(*calls)] == [3, 3, 3]


@pytest.mark.parametrize("has_template", ["template"], indirect=True)
async def test_a_child_that_is_killed_from_outside(searching: Searching, found: asyncio.Queue[int]) -> None:
    """The hits so far are returned, as if the time had been up."""
    call = asyncio.create_task(searching.searcher.search(FOR_EVER))
    async with asyncio.timeout(WAIT_SECS):
        pid = await searching.screens.reports.get()
        await found.get()
    os.kill(pid, signal.SIGKILL)
    page = await call
    assert ([hit.text for hit in page.hits], page.complete) == (["aaa", "aa", "a"], False)


@pytest.mark.parametrize("has_template", ["template"], indirect=True)
async def test_a_template_that_is_stopped(searching: Searching, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the template does not fork in time an interpreter searches."""
    await searching.searcher.search(HistorySearch(query="aaa"))
    await searching.children_ended()
    template = searching.screens._template_process
    assert template is not None
    os.kill(template.pid, signal.SIGSTOP)
    monkeypatch.setattr(search_module, "START_SECS", 0.2)
    try:
        assert (await searching.searcher.search(HistorySearch(query="aaa"))).hits
    finally:
        os.kill(template.pid, signal.SIGCONT)
    await searching.children_ended()


@pytest.mark.parametrize("has_template", ["interpreter"], indirect=True)
async def test_what_is_not_saved_yet(searching: Searching) -> None:
    """Sessions that are searched are saved before; an answer says where that took too long. Other pages save none."""
    one, two = [session.id for session in (await searching.manager.list_sessions()).sessions]
    searching.live_ids = [one, two]
    searching.is_flushed = False
    search = searching.searcher.search
    page = await search(HistorySearch(query="a", limit=1))
    assert not page.complete
    assert (await search(HistorySearch(query="a", cursor=page.next_cursor))).complete
    await search(HistorySearch(query="a", session_id=one))
    await search(HistorySearch(query="a", labels={"a": "b"}))
    assert searching.flushed == [[one, two], [one], []]


@pytest.mark.parametrize("has_template", ["interpreter"], indirect=True)
async def test_what_is_refused(searching: Searching) -> None:
    """Unknown sessions and workspaces, cursors and expressions that are none have their own errors."""
    search = searching.searcher.search
    unknown = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(SessionNotFound):
        await search(HistorySearch(query="a", session_id=unknown))
    with pytest.raises(WorkspaceNotFound):
        await search(HistorySearch(query="a", workspace_id=unknown))
    with pytest.raises(InvalidParams, match="`cursor` is not one that a page gave"):
        await search(HistorySearch(query="a", cursor="abc"))
    with pytest.raises(InvalidParams, match="at character 1"):
        await search(HistorySearch(query="[", regex=True))


@pytest.mark.parametrize("has_template", ["interpreter"], indirect=True)
async def test_damage(searching: Searching) -> None:
    """A damaged row is noted, and a file that is no database is an error."""
    searching.filled.connection.execute("UPDATE texts SET checksum = 1 WHERE to_at = 1000")
    assert len((await searching.searcher.search(HistorySearch(query="a"))).hits) == 3
    assert searching.damaged == ["row 2 of texts: its checksum is another"]
    searching.filled.connection.close()
    await asyncio.to_thread(Path(searching.filled.history).write_bytes, b"no database" * 1000)
    with pytest.raises(StorageCorrupt):
        await searching.searcher.search(HistorySearch(query="a"))
