"""The daemon's life: take the lock, listen, open the store, serve, stop.

The order matters. The lock comes first, so that only one process touches socket and
database. Listening comes before opening, so that early clients wait in the backlog instead of
being refused. At the end the server stops before the last save, so that nothing is answered
that the save would miss.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime

from msgspec import UNSET

from orbit_os.files import UnsafeFolder, check_file, private_folder
from orbit_os.lock_note import SERVING, STOPPING
from orbit_os.places import Places
from orbit_os.sockets import fitting_socket_path
from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.errors import StorageCorrupt
from orbit_protocol.results import DaemonInfo, Limits
from orbit_protocol.settings import Resolved
from orbit_protocol.text import path_and_bytes
from orbit_protocol.types import MAX_NAME_LENGTH, MAX_PAGE_SIZE
from orbitd import warnings
from orbitd.descriptors import affordable_connections
from orbitd.events.broker import Broker
from orbitd.events.child import Surroundings
from orbitd.events.daemon_events import DaemonEvents
from orbitd.events.desktop import Desktop
from orbitd.events.hooks import Hooks
from orbitd.events.listener import Listener, unless_private
from orbitd.events.methods import EventMethods
from orbitd.history.database import history_path
from orbitd.history.history import History
from orbitd.history.methods import HistoryMethods
from orbitd.installation import this_installation
from orbitd.lock import AlreadyLocked, database_lock
from orbitd.logs import event
from orbitd.maintenance import Maintenance, MaintenanceTask
from orbitd.manager import SessionManager
from orbitd.rpc.connection import MAX_IN_FLIGHT, Call
from orbitd.rpc.dispatch import MAX_BATCH, Dispatcher, Handlers
from orbitd.rpc.handlers import (
    add_daemon_handlers,
    add_event_handlers,
    add_history_handlers,
    add_store_handlers,
    connected,
)
from orbitd.rpc.server import Server
from orbitd.rpc.sockets import Sockets, SocketUnusable, inherited_listener
from orbitd.sessions.command_line import login_environment
from orbitd.sessions.methods import SessionMethods
from orbitd.sessions.programs import LiveSettings, Programs
from orbitd.sessions.restore import finish_restoring, restore_sessions
from orbitd.store.backup import daily, restore
from orbitd.store.backup.daily import DailyBackups
from orbitd.store.files import SIDE_FILES, size
from orbitd.supervision import Notifier, Supervision
from orbitd.warnings import StoreWarning

log = logging.getLogger("orbitd")

STOP_GRACE_SECS = 10.0
HOUR_SECS = 3_600.0
DAY_SECS = 24 * HOUR_SECS
WEEK_SECS = 7 * DAY_SECS
VACUUM_INTERVAL_SECS = 600.0
SOCKET_CHECK_SECS = 5.0
DATABASE_CHECK_SECS = 5.0
BACKUP_CHECK_SECS = 3_600.0
WARNINGS_CHECK_SECS = 10.0
STARTUP_QUIET_SECS = 60.0
FEATURES = ("store", "events", "headers", "history")


class Daemon:
    """One running daemon.

    Args:
        resolved: Settings and paths.
        supervision: What systemd or launchd passed to this process.
        on_ready: Called once clients are served.
    """

    def __init__(
        self, resolved: Resolved, supervision: Supervision, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self._resolved = resolved
        self._supervision = supervision
        self._on_ready = on_ready
        self._started_at = datetime.now(UTC)
        self._stop = asyncio.Event()
        self._warnings: list[StoreWarning] = []
        self._is_new = False
        self._max_connections = affordable_connections(resolved.settings.daemon.max_connections)

    async def run(self) -> None:
        """Serve until a signal or `daemon.shutdown`.

        Raises:
            AlreadyLocked: Another daemon serves this database.
            SocketUnusable, UnsafeFolder, UnsafeFile, OSError: Socket, folders or files cannot be used.
            OrbitError: The store cannot be opened.
        """
        private_folder(os.path.dirname(self._resolved.database_path))
        check_file(self._resolved.database_path)  # SQLite would open it through a link
        supervisor = "" if self._supervision.name == "none" else self._supervision.name
        with (
            database_lock(self._resolved.database_path, self._resolved.socket_path, supervisor) as lock,
            self._listening() as self._sockets,
            _signals(self.stop),
        ):
            self._lock = lock
            lock.update(socket=self._sockets.path)
            async with (
                self._open_store() as manager,
                History(history_path(manager.path), self._resolved.settings.history) as history,
            ):
                await self._serve(manager, history)
        event(log, logging.INFO, "stopped")

    def stop(self) -> None:
        """Begin a graceful stop."""
        self._stop.set()

    @contextlib.asynccontextmanager
    async def _open_store(self) -> AsyncIterator[SessionManager]:
        """Open the store. A corrupt one has been set aside: log an error and go on with what is whole in it."""
        path = self._resolved.database_path
        daily.remove_leftovers(path)
        if restore.finish_interrupted(path):
            event(log, logging.WARNING, "interrupted restore finished", database=path)
        self._is_new = size(path) == 0
        try:
            manager = await SessionManager.open(path)
        except StorageCorrupt as error:
            if "set_aside" not in error.extra:
                raise
            event(log, logging.ERROR, "database set aside", reason=error.message, **error.extra)
            manager = await SessionManager.open(path, start_empty=True)
        try:
            self._warnings = await asyncio.to_thread(warnings.store_warnings, path, is_new=self._is_new)
        except Exception as error:  # noqa: BLE001  # they are about odd files; the store is open
            event(log, logging.ERROR, "files not examined", error=type(error).__name__, exc=error)
        self._warnings += warnings.opening_warnings(manager.repairs, manager.read_only)
        self._warnings += warnings.limit_warnings(self._max_connections, self._resolved.settings.daemon.max_connections)
        manager.reserve(self._own_files())
        manager.event_retention_count = self._resolved.settings.events.event_retention_count
        try:
            yield manager
        finally:
            await manager.close()

    def _own_files(self) -> list[str]:
        """Return the files and folders, beside the database, that a backup may not be written to."""
        resolved = self._resolved
        state = resolved.state_folder
        # The files in it for their second names by hard links, which lie elsewhere.
        files = [f"{state}/{name}" for name in ("start.lock", "orbitd.log", "orbitd.log.1")]
        history = history_path(resolved.database_path)
        files += [history + suffix for suffix in ("", *SIDE_FILES)]
        found = [resolved.config_path, resolved.socket_path, state, *files]
        if os.path.isfile("/dev/fd/2"):  # the log, where no orbitctl made it
            found.append(os.path.realpath("/dev/fd/2"))
        return [*found, resolved.run_folder]

    @contextlib.contextmanager
    def _listening(self) -> Iterator[Sockets]:
        """Listen on the sockets of a supervisor, else at the configured path; close them at the end."""
        path, inherited = self._resolved.socket_path, self._supervision.sockets
        spare_path = fitting_socket_path(os.path.join(self._resolved.state_folder, "orbitd.sock"))
        if inherited:
            listeners = [inherited_listener(one) for one in inherited]
            sockets = Sockets(listeners, [listener.path for listener in listeners], spare_path)
        else:
            sockets = Sockets([], [path], spare_path)
            # The variable of a runtime folder outlives the login. A path that somebody has chosen is not replaced.
            sockets.listen_first(may_move=path == Places(os.environ).socket)
            if sockets.obstacle:
                event(log, logging.WARNING, "cannot listen in the runtime folder", socket=path, error=sockets.obstacle)
        try:
            yield sockets
        finally:
            for listener in sockets.listeners:
                listener.close()

    async def _serve(self, manager: SessionManager, history: History) -> None:
        settings = self._resolved.settings
        self._history = history
        backups = DailyBackups(manager, settings.session.backup_retention_count)
        broker = Broker(lambda session_id: _workspace_of(manager, session_id))
        manager.on_events = broker.publish
        self._hooks, desktop = self._listen(manager, broker)
        programs = self._programs(manager, history)
        programs.outlet.live = broker
        daemon_events = DaemonEvents(manager, broker, lambda: self._current_warnings(manager, programs))
        maintenance = Maintenance(self._maintenance_tasks(manager, programs, backups, daemon_events))
        await restore_sessions(manager, programs, start_again=settings.session.restore_sessions_on_startup)
        handlers: Handlers[Call] = Handlers()
        add_daemon_handlers(
            handlers,
            info=lambda: self._info(manager, maintenance, backups, programs),
            connections=lambda: connected(self._server.connections, programs.registry),
            stop=self.stop,
        )
        sessions = SessionMethods(manager, programs)
        add_store_handlers(handlers, manager, sessions)
        add_history_handlers(handlers, sessions, HistoryMethods(manager, history, programs))
        add_event_handlers(handlers, EventMethods(manager, broker))
        self._server = Server(
            Dispatcher(handlers),
            max_connections=self._max_connections,
            wanted_connections=settings.daemon.max_connections,
            max_message_bytes=settings.daemon.max_message_bytes,
        )
        programs.room.count_clients = lambda: len(self._server.connections)
        for listener in self._sockets.listeners:
            self._server.serve(listener)
        self._check_sockets_now()  # one that was handed over may have no file any more
        asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, self._check_sockets_now)
        async with asyncio.TaskGroup() as group:
            background = group.create_task(maintenance.run(), name="maintenance")
            self._announce()
            # Nothing waits for these: the first picture, what is left of the restore, a database that is damaged.
            programs.screens.start()
            if manager.read_only is None:
                history.start_mending()
            restoring = group.create_task(finish_restoring(programs), name="restoring")
            group.create_task(daemon_events.record_start(), name="recording the start")
            await self._stop.wait()
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCONT)
            self._lock.update(state=STOPPING)
            self._supervision.notifier.stopping()
            event(log, logging.INFO, "stopping", connections=len(self._server.connections))
            background.cancel()
            restoring.cancel()
        await daemon_events.record_stop()
        broker.close()
        await desktop.close()
        await self._hooks.close()
        programs.start_closing()
        await self._server.stop(STOP_GRACE_SECS)
        await broker.finish()
        await programs.close()

    def _listen(self, manager: SessionManager, broker: Broker) -> tuple[Hooks, Desktop]:
        """Have hooks and the desktop hear of events."""
        settings, supervision = self._resolved.settings, self._supervision
        socket = os.fsencode(self._sockets.path)

        @functools.cache
        def surroundings() -> Surroundings:
            env = login_environment(os.environb, is_managed=supervision.name != "none")
            env |= {b"ORBITD_SOCKET": socket, b"ORBIT_SOCKET": socket}
            return Surroundings(env=env, umask=supervision.program_umask, limits=supervision.program_limits)

        hooks = Hooks(settings.hooks, surroundings, lambda session_id: _name_of(manager, session_id))
        desktop = Desktop(settings.notifications, surroundings, manager.cached_session, broker.is_handled)
        for part in (hooks, desktop):
            if part.kinds:
                handle = unless_private(part.handle, manager.cached_session)
                listener = Listener(manager, part.kinds, manager.newest_seq, handle)
                broker.add(listener)
                broker.start(listener)
        return hooks, desktop

    def _programs(self, manager: SessionManager, history: History) -> Programs:
        resolved, session = self._resolved, self._resolved.settings.session
        live = LiveSettings(
            keeper_socket=resolved.database_path + ".keeper",
            journal_folder=os.path.join(resolved.state_folder, "journal"),
            landing_file=_landing_file(resolved.run_folder, resolved.database_path),
            agent_folder=os.path.join(resolved.state_folder, "agent"),
            runtime_folder=resolved.runtime_folder,
            daemon_socket=self._sockets.path,
            program_umask=self._supervision.program_umask,
            program_limits=self._supervision.program_limits,
            is_managed=self._supervision.name != "none",
            scrollback_max_bytes=session.scrollback_max_bytes,
            total_scrollback_bytes=session.total_scrollback_bytes,
            keeps_deleted=session.trash_retention_secs > 0,
            silence_secs=resolved.settings.events.silence_secs,
            shell_integration=resolved.settings.events.shell_integration,
        )
        return Programs(manager, history, live, session.auto_save_interval_secs)

    def _announce(self) -> None:
        event(
            log,
            logging.INFO,
            "serving",
            pid=os.getpid(),
            version=VERSION,
            socket=self._sockets.path,
            database=self._resolved.database_path,
        )
        self._lock.update(state=SERVING)
        self._supervision.notifier.ready()
        self._on_ready()

    def _maintenance_tasks(
        self, manager: SessionManager, programs: Programs, backups: DailyBackups, daemon_events: DaemonEvents
    ) -> list[MaintenanceTask]:
        session = self._resolved.settings.session

        async def check_socket() -> None:
            self._check_sockets()
            await programs.keeper.check_socket()

        async def check_database() -> None:
            try:
                await manager.watch()
            finally:
                if manager.is_database_in_place():  # else the lock may belong to another database by now
                    self._check_lock()

        tasks = [
            MaintenanceTask("database", DATABASE_CHECK_SECS, check_database),
            # What rows cannot show: an index or a tree whose damage hides some of them.
            MaintenanceTask("check", WEEK_SECS, manager.check, first_after_secs=STARTUP_QUIET_SECS),
            MaintenanceTask("socket", SOCKET_CHECK_SECS, check_socket),
        ]
        writing = [
            MaintenanceTask("auto-save", session.auto_save_interval_secs, manager.auto_save_sessions),
            MaintenanceTask(
                "cleanup",
                DAY_SECS,
                lambda: manager.cleanup_old_snapshots(session.snapshot_retention_count),
                first_after_secs=STARTUP_QUIET_SECS,
            ),
            _retention_task("trash", session.trash_retention_secs, HOUR_SECS, manager.purge_expired),
            MaintenanceTask("vacuum", VACUUM_INTERVAL_SECS, manager.vacuum_step),
            MaintenanceTask("backup", BACKUP_CHECK_SECS, backups.run, first_after_secs=STARTUP_QUIET_SECS),
            MaintenanceTask("rows", DAY_SECS, manager.verify_rows, first_after_secs=0),
            MaintenanceTask("warnings", WARNINGS_CHECK_SECS, daemon_events.record_warnings),
        ]
        keep = self._resolved.settings.history.recording_retention_secs
        writing.append(_retention_task("films", keep, HOUR_SECS, lambda _: self._history.drop_expired()))
        if session.ended_retention_secs:
            writing.append(_retention_task("archive", session.ended_retention_secs, DAY_SECS, manager.archive_ended))
        if manager.read_only is None:
            tasks = writing + tasks
        if self._supervision.watchdog_secs is not None:
            feed = functools.partial(_feed_watchdog, manager, self._supervision.notifier)
            tasks.append(MaintenanceTask("watchdog", self._supervision.watchdog_secs, feed, first_after_secs=0))
        return tasks

    def _check_lock(self) -> None:
        """Lock again where the lock's file was removed; stop where another daemon has done so, and serves too.

        Raises:
            UnsafeFile, OSError: The lock's file cannot be opened or locked.
        """
        try:
            if self._lock.check():
                path = self._resolved.database_path
                event(log, logging.WARNING, "lock file was removed, locked again", database=path)
        except AlreadyLocked as error:
            # Two that write one database lose what they answer. Clients find the other one, by its note.
            event(log, logging.ERROR, "the lock was lost, stopping", error=str(error))
            self.stop()

    def _check_sockets(self) -> None:
        """Listen again where a socket's file or folder has been removed, and say so in the lock.

        Raises:
            SocketUnusable, UnsafeFolder, OSError: It cannot listen anywhere.
        """
        added, given_up = self._sockets.listen_again()
        for listener in added:
            self._server.serve(listener)
            event(log, logging.WARNING, "socket was removed, listening again", socket=listener.path)
        for listener in given_up:
            self._server.give_up(listener)
        self._lock.update(socket=self._sockets.path)

    def _check_sockets_now(self) -> None:
        """Check the sockets without waiting for the next regular check, which reports a failure to `daemon.info`.

        SIGCONT asks for it: from a client that finds this process in the lock's note and no socket, and when the
        process goes on after it was stopped.
        """
        try:
            self._check_sockets()
        except (SocketUnusable, UnsafeFolder, OSError) as error:
            event(log, logging.WARNING, "cannot listen", error=str(error))

    def _info(
        self, manager: SessionManager, maintenance: Maintenance, backups: DailyBackups, programs: Programs
    ) -> DaemonInfo:
        daemon = self._resolved.settings.daemon
        socket_path, socket_path_bytes = path_and_bytes(self._sockets.path)
        database_path, database_path_bytes = path_and_bytes(self._resolved.database_path)
        backup, backup_bytes = (None, UNSET) if backups.last is None else path_and_bytes(backups.last.path)
        return DaemonInfo(
            version=VERSION,
            protocol_version=PROTOCOL_VERSION,
            pid=os.getpid(),
            started_at=self._started_at,
            socket_path=socket_path,
            socket_path_bytes=socket_path_bytes,
            database_path=database_path,
            database_path_bytes=database_path_bytes,
            features=[*FEATURES, *(["live"] if programs.screens.unavailable_reason is None else [])],
            limits=Limits(
                max_connections=self._max_connections,
                max_message_bytes=daemon.max_message_bytes,
                max_in_flight=MAX_IN_FLIGHT,
                max_batch=MAX_BATCH,
                max_name_length=MAX_NAME_LENGTH,
                max_page_size=MAX_PAGE_SIZE,
            ),
            supervisor=self._supervision.name,
            maintenance=maintenance.status(),
            warnings=self._current_warnings(manager, programs),
            last_backup_at=None if backups.last is None else backups.last.moment,
            last_backup_path=backup,
            last_backup_path_bytes=backup_bytes,
        )

    def _current_warnings(self, manager: SessionManager, programs: Programs) -> list[str]:
        wanted = self._resolved.settings.daemon.max_connections
        return [
            *(each.sentence for each in self._warnings if each.lasts),
            *warnings.new_database_warnings(
                self._resolved.database_path, programs.recorded_again if self._is_new else 0
            ),
            *self._sockets.warnings(self._supervision.name),
            *manager.damage_warnings(),
            *this_installation.warnings(),
            *programs.warnings(),
            *self._history.warnings(),
            *self._hooks.warnings(),
            *warnings.connection_warnings(self._max_connections, wanted, is_full=self._server.is_full),
        ]


def _name_of(manager: SessionManager, session_id: str) -> str | None:
    session = manager.cached_session(session_id)
    return None if session is None else session.name


def _workspace_of(manager: SessionManager, session_id: str) -> str | None:
    session = manager.cached_session(session_id)
    return None if session is None else session.workspace_id


def _retention_task(
    name: str, retention_secs: int, most_secs: float, run: Callable[[int], Awaitable[object]]
) -> MaintenanceTask:
    """Return a task for what is kept for some time: the shorter that is, the more often it is looked at."""
    interval = max(1.0, min(most_secs, retention_secs / 10 or most_secs))
    first = min(STARTUP_QUIET_SECS, interval)
    return MaintenanceTask(name, interval, lambda: run(retention_secs), first_after_secs=first)


async def _feed_watchdog(manager: SessionManager, notifier: Notifier) -> None:
    """Feed the supervisor's watchdog: this runs, so the loop does, and the read shows that the database answers."""
    await manager.probe()
    # Of a manager that does not read the queue is full, and sendto(2) blocks: in a thread, not on the event loop.
    if not notifier.watchdog(waits=False):
        await asyncio.to_thread(notifier.watchdog)


def _landing_file(run_folder: str, database_path: str) -> str:
    """Return the path of a database's landing buffer, where the system has no memory that the keeper can hold."""
    name = hashlib.sha256(os.fsencode(database_path)).hexdigest()[:16]
    return os.path.join(run_folder, f"landing-{name}")


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Stop gracefully on SIGTERM, SIGINT and SIGHUP; one that was ignored at the start, as by nohup(1), stays so."""
    loop = asyncio.get_running_loop()
    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    wanted = [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]
    for number in wanted:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)
