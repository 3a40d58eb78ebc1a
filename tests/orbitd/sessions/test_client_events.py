"""Clients that come and leave, and programs that end, as they are recorded in the store."""

from __future__ import annotations

import asyncio

from orbit_protocol.errors import StorageFull
from orbitd.keeper.client import KeptProgram
from orbitd.rpc.connection import PeerProcess
from orbitd.sessions.session import MAX_CLIENT_CHANGES, client_change
from orbitd.store.sessions import ClientChange
from sessions_support import MOMENT, Client, Sessions, until


async def attach(sessions: Sessions, pid: int, *, read_only: bool = False) -> Client:
    client = sessions.client(read_only=read_only)
    client.connection.peer = PeerProcess(pid=pid, connected_at=0.0)
    return await client.attach()


def came(pid: int | None, *, read_only: bool = False) -> ClientChange:
    return ClientChange(attached=True, pid=pid, read_only=read_only)


def left(pid: int | None, *, read_only: bool = False) -> ClientChange:
    return ClientChange(attached=False, pid=pid, read_only=read_only)


async def test_each_client_is_recorded_once(sessions: Sessions) -> None:
    """The first to come and the last to leave with the status, the others by themselves; with pid and `read_only`."""
    await sessions.run()
    one, two = await attach(sessions, 7), await attach(sessions, 0, read_only=True)
    one.connection.close()
    await until(lambda: len(sessions.store.clients) == 3)
    two.connection.close()
    await until(lambda: len(sessions.store.clients) == 4)
    assert sessions.store.clients == [
        ("one", "active", came(7)),
        ("one", None, came(None, read_only=True)),
        ("one", None, left(7)),
        ("one", "detached", left(None, read_only=True)),
    ]


async def test_everybody_who_is_detached_is_recorded(sessions: Sessions) -> None:
    """A `session.detach` is one change of status, and an event for each client."""
    await sessions.run()
    await attach(sessions, 7)
    await attach(sessions, 8)
    await sessions.methods.detach("one")
    assert sessions.store.clients[2:] == [("one", "detached", left(7)), ("one", "detached", left(8))]


async def test_the_end_of_a_program_is_no_client_that_leaves(sessions: Sessions) -> None:
    """Clients whose session has ended hear of that: their ends are not recorded too, nor with the next program."""
    await sessions.run()
    await attach(sessions, 7)
    await sessions.exit()
    assert sessions.store.ends == [("one", "terminated", None)]
    await sessions.run()
    await attach(sessions, 8)
    assert [each for _, _, each in sessions.store.clients] == [came(7), came(8)]


async def test_a_request_is_the_reason_of_an_end(sessions: Sessions) -> None:
    """A program that was ended by a request has that as its reason; one that its keeper took along, another."""
    await sessions.run()
    live = sessions.registry.get("one")
    assert live is not None
    live.is_terminating = True
    await sessions.exit()
    await sessions.run("two")
    sessions.endings.handle_keeper_gone()
    await until(lambda: len(sessions.store.ends) == 2)
    assert sessions.store.ends == [("one", "terminated", "terminated"), ("two", "detached", "program_lost")]


async def test_a_lost_connection_is_the_reason_of_an_end(sessions: Sessions) -> None:
    """Where ssh exits with 255, the session is detached for a lost connection."""
    await sessions.run(session_type="ssh")
    lost = KeptProgram(id="one", pid=1 << 24, started_at=MOMENT, ended_at=MOMENT, exit_code=255)
    await sessions.endings.handle_exit(lost)
    assert sessions.store.ends == [("one", "detached", "connection_lost")]


async def test_a_client_can_work_though_it_is_not_recorded(sessions: Sessions) -> None:
    """A full disk refuses no client; who could not be recorded is with the next try."""
    await sessions.run()
    sessions.store.errors["update_session_status"] = [StorageFull("The disk is full")]
    await attach(sessions, 7)
    await attach(sessions, 8)
    assert sessions.store.clients == [("one", "active", came(7)), ("one", None, came(8))]
    sessions.store.errors["record_clients"] = [StorageFull("The disk is full")]
    client = await attach(sessions, 9)
    client.connection.close()
    await until(lambda: len(sessions.store.clients) == 4)
    assert sessions.store.clients[2:] == [("one", None, came(9)), ("one", None, left(9))]


async def test_only_so_many_wait_to_be_recorded(sessions: Sessions) -> None:
    """Clients that come and leave while the session's lock is held have a limit; the newest are recorded."""
    live = await sessions.run()
    client = await attach(sessions, 7)
    change = client_change(live.attachments[0], attached=True)
    live.client_changes.extend([change] * (2 * MAX_CLIENT_CHANGES))
    assert len(live.client_changes) == MAX_CLIENT_CHANGES
    client.connection.close()
    await until(lambda: not live.client_changes)
    assert sessions.store.clients[-1] == ("one", "detached", left(7))
    assert await asyncio.wait_for(sessions.exit(), 10) is None


async def test_the_oldest_of_those_that_wait_are_given_up(sessions: Sessions) -> None:
    """Also where a write has failed, whose clients wait again, and more have come meanwhile."""
    live = await sessions.run()
    await attach(sessions, 7)
    change = client_change(live.attachments[0], attached=True)

    async def fail(session_id: str, clients: object) -> None:
        live.client_changes.extend([change] * (MAX_CLIENT_CHANGES - 1) + [left(8)])
        raise StorageFull("The disk is full")

    sessions.store.record_clients = fail  # type: ignore[method-assign]
    live.client_changes.append(came(8))
    await sessions.programs.update_status_from_clients(live)
    assert (len(live.client_changes), live.client_changes[-1]) == (MAX_CLIENT_CHANGES, left(8))
