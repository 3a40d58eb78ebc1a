"""Memory that the keeper holds for a private session: it outlives orbitd, and goes with the program."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import orbitd.keeper.server
from keeper_support import OLDER, KeeperProcess, Orbitd
from live.screens_processes import descriptors
from needs import needs
from orbit_protocol.errors import InternalError, SpawnFailed, TooManySessions
from orbitd.keeper.client import UnsupportedRequest
from orbitd.keeper.messages import MAX_MEMORIES
from orbitd.keeper.server import Keeper, RequestError

ROOT = Path(orbitd.keeper.server.__file__).parents[2]
pytestmark = needs(linux=True)


async def held(orbitd: Orbitd) -> int:
    """Return how many memories the keeper holds."""
    await orbitd.client.programs()  # what it has sent is closed by then
    return sum("orbit-memory" in name for name in descriptors(orbitd.client.keeper_pid).values())


async def put(orbitd: Orbitd, name: str, data: bytes, program_id: str = "one") -> None:
    fd = await orbitd.client.memory(program_id, name)
    os.pwrite(fd, data, 0)
    os.close(fd)


async def content(orbitd: Orbitd, name: str, program_id: str = "one") -> bytes:
    fd = await orbitd.client.memory(program_id, name)
    try:
        return os.pread(fd, 100, 0)
    finally:
        os.close(fd)


async def test_memory_outlives_orbitd_and_goes_with_its_program(stopped: KeeperProcess) -> None:
    """The next orbitd finds what was written, by id and name; once the program is forgotten nothing is held."""
    first = await stopped.orbitd()
    await put(first, "journal", b"kept")
    await put(first, "screen", b"other")
    await first.spawn("cat")
    await first.spawn("cat", id="two")
    second = await stopped.orbitd()
    assert (await content(second, "journal"), await content(second, "screen")) == (b"kept", b"other")
    assert await content(second, "journal", "two") == b""
    assert [each.has_memory for each in await second.client.programs()] == [True, True]
    await second.client.signal("one", 9)
    await second.exit()
    assert await content(second, "journal") == b"kept"  # until its exit is stored
    await second.client.acknowledge_exit("one")
    await second.client.forget("one")
    assert await held(second) == 1
    assert await content(second, "journal") == b""


async def test_memory_of_programs_that_were_not_started(stopped: KeeperProcess) -> None:
    """It goes with a program that cannot be started, and where its orbitd ended before it was, with the next hello."""
    first = await stopped.orbitd()
    await put(first, "journal", b"x")
    with pytest.raises(SpawnFailed):
        await first.spawn("/no/such/program")
    assert await held(first) == 0
    await put(first, "journal", b"x")
    assert await held(first) == 1
    second = await stopped.orbitd()
    assert await held(second) == 0


async def test_memory_has_bounds(stopped: KeeperProcess) -> None:
    """There are so many of one id, and no more in all than there are descriptors for; what is there stays."""
    orbitd = await stopped.orbitd()
    for number in range(MAX_MEMORIES):
        await put(orbitd, f"{number}", b"x")
    for name in ("one more", "", "n" * 101):
        with pytest.raises(InternalError):
            await orbitd.client.memory("one", name)
    for program_id in ("", "i" * 101):
        with pytest.raises(InternalError):
            await orbitd.client.memory(program_id, "0")
    assert await content(orbitd, "0") == b"x"
    assert await held(orbitd) == MAX_MEMORIES


async def test_as_much_memory_as_descriptors(folder: Path) -> None:
    """A keeper that may open few files refuses more memory by name, and goes on."""
    command = f"ulimit -n 60; exec {sys.executable} -I -S {ROOT}/orbitd/keeper/__main__.py {folder}/keeper.sock"
    environment = {"ORBIT_OPEN_FILES": "60"}
    await asyncio.to_thread(subprocess.run, ["sh", "-c", command], check=True, env=environment)
    keeper = KeeperProcess(f"{folder}/keeper.sock")
    try:
        orbitd = await keeper.orbitd()
        await put(orbitd, "journal", b"x", "first")

        async def take_all() -> None:
            for number in range(60):
                await put(orbitd, "journal", b"x", f"{number}")

        with pytest.raises(TooManySessions):
            await take_all()
        assert await content(orbitd, "journal", "first") == b"x"
        with pytest.raises(TooManySessions):  # programs take of the same
            await orbitd.spawn("true", id="first")
    finally:
        keeper.kill()


async def test_a_keeper_without_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is older than the request, and one whose system has none, say so; nothing else is refused."""
    search = [str(ROOT), str(ROOT / "protocol")]
    older = [sys.executable, "-I", "-S", "-c", OLDER, f"{folder}/keeper.sock", *search]
    await asyncio.to_thread(subprocess.run, older, check=True)
    keeper = KeeperProcess(f"{folder}/keeper.sock")
    try:
        orbitd = await keeper.orbitd()
        with pytest.raises(UnsupportedRequest, match="no request memory"):
            await orbitd.client.memory("one", "journal")
        await orbitd.spawn("cat")
        assert [each.has_memory for each in await orbitd.client.programs()] == [False]
    finally:
        keeper.kill()
    monkeypatch.delattr(os, "memfd_create")
    without = Keeper.__new__(Keeper)
    without.memories, without.programs, without.spawning, without.max_files = {}, {}, {}, 10
    with pytest.raises(RequestError, match="memory: "):
        without._create_memory("one", "journal")
    assert without.memories == {}
