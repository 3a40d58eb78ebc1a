"""The event loop of an attached client.

It is in one of three states: attached; attaching (`session.attach` was sent, its answer has not
come); or disconnected, while `Reconnect` tries to reach the daemon again.

One thread, one select(2). In each turn keys are handled first, then signals, then output: however
much a program prints, the detach key and SIGWINCH are never behind it. Output is read from the
socket only while the terminal keeps up; the daemon drops output for a client that does not read
and sends one repaint later.
"""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections import deque
from typing import NamedTuple

from orbit_protocol.errors import (
    Busy,
    InvalidParams,
    LiveUnavailable,
    NotRunning,
    OrbitError,
    ShuttingDown,
    from_object,
)
from orbit_protocol.terminal_reset import LINES_UP
from orbitctl.attach.connection import (
    DETACHED,
    EXITED,
    OUTPUT,
    REPAINT,
    SESSION_ATTACH,
    SESSION_LEAVE,
    SESSION_RESIZE,
    SESSION_SCREEN,
    ConnectionLost,
    DaemonConnection,
    InputQueue,
    Message,
    Notice,
    bytes_of,
    text_of,
)
from orbitctl.attach.detach_key import PARTIAL_KEY_SECONDS, DetachKey, KeyFilter
from orbitctl.attach.painter import Painter
from orbitctl.attach.terminal import SignalReceived, Terminal
from orbitctl.attach.window import MAX_HISTORY_LINES, Window, rows_below
from orbitctl.errors import CommandError, ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it
    from typing import Any, Literal

    from orbitctl.attach.mark import Mark, Shown
    from orbitctl.attach.reconnect import Reconnect

MAX_PENDING_BYTES = 256 * 1024
"""Output that waits for the terminal; beyond that, nothing is read from the daemon."""
MAX_INPUT_WHILE_DISCONNECTED = 4 * 1024
FAREWELL_SECS = 0.5
"""How long the daemon has to answer what is asked before the window is left."""

RESIZE_SECS = 0.1
"""How long the window's size has to stay the same until the session has it, too: a drag is many sizes. foot's time."""

LEAVE_SECS = 1.0
"""How long the detach key waits until what was typed before it has been taken."""
CANCEL_SECS = 0.1
"""How much of that is for taking back what was not."""


class Named(NamedTuple):
    """What a message about a session needs of it.

    Attributes:
        id: Its id.
        name: Its name, if it has one.
    """

    id: str
    name: str | None


def _environment(pairs: list[tuple[bytes, ...]]) -> dict[str, Any]:
    """Return the params for variables: as text where they are UTF-8, which every release of orbitd takes."""
    try:
        return {"env": {name.decode(): value.decode() for name, value in pairs}}
    except UnicodeDecodeError:
        return {"env_bytes": [[text_of(name), text_of(value)] for name, value in pairs]}


class AttachOptions(NamedTuple):
    """What the user asked for.

    Attributes:
        session_id: The session.
        scrollback_lines: How many lines of history; None for those that the window does not have yet.
        mark: Where it is remembered which these are, if it is.
        shown: Where it is remembered which sessions the window has shown; without it, it cannot be switched.
        how: How the user can see lines that are left out.
    """

    session_id: str
    read_only: bool
    detach_key: DetachKey
    scrollback_lines: int | None
    env: list[tuple[bytes, ...]]
    mark: Mark | None = None
    shown: Shown | None = None
    how: str = ""


class AttachResult(NamedTuple):
    """Why an attachment ended.

    Attributes:
        reason: `detached` by the key, `detached_elsewhere` by `session detach`, `exited` with the program,
            `hangup` of the terminal, `switched` to another session.
        exit_code: Of a program that has exited.
        exit_signal: Of a program that a signal ended. Both are None where the exit status is lost.
        not_taken: How many bytes that were typed before the user left did not reach the program.
        session_id: The session that is to be shown now.
    """

    reason: Literal["detached", "detached_elsewhere", "exited", "hangup", "switched"]
    exit_code: int | None = None
    exit_signal: int | None = None
    not_taken: int = 0
    session_id: str = ""


class Attachment:
    """One terminal attached to one session.

    Args:
        options: The session, and how to attach to it.
        terminal: The user's terminal, in raw mode.
        connection: A connection to the daemon, None where it is lost; the attachment closes it, unless it is left for
            another session.
        reconnect: Reaches the daemon again when the connection is lost.

    Attributes:
        was_attached: Whether the session has been shown.
        session: The session, once it is attached to.
    """

    def __init__(
        self, options: AttachOptions, terminal: Terminal, connection: DaemonConnection | None, reconnect: Reconnect
    ) -> None:
        self._options = options
        self._terminal = terminal
        self._keys = KeyFilter(options.detach_key)
        self._flush_keys_at: float | None = None
        self._input = InputQueue()
        self._questions = terminal.questions
        self._is_asking = False  # the attach waits for the terminal's answers
        self._connection = connection
        self._reconnect = reconnect
        self._before = None if options.shown is None else options.shown.load()
        self.session: Named | None = None
        self._id = ""  # empty unless attached
        self._attach_request = self._leave_request = self._screen_request = 0
        self._window = Window(options.how)
        self._painter = Painter(terminal, self._window)
        self._messages: deque[Message] = deque()  # that have come, in order, while a picture waits before them
        self._counts_lines = True
        self._requested_size = (0, 0)
        self._resize_at: float | None = None
        self._was_resized = False  # since the daemon was sent a size
        self._needs_attachment = False  # by then
        self._asked_line = 0  # behind which the attachment brings the history
        self._result: AttachResult | None = None
        self.was_attached = False

    def run(self) -> AttachResult:
        """Run the loop until the user detaches or the program exits.

        Raises:
            OrbitError: The daemon refuses the attach, at first or after a restart.
            CommandError: The daemon has not come back in time.
            SignalReceived: A signal is to end this process.
        """
        try:
            self._begin()
            while self._result is None:
                # The rest of a turn that was cut short is not lost: select reports again what is still ready.
                try:
                    self._turn()
                except ConnectionLost:
                    self._disconnect()
            with contextlib.suppress(ConnectionLost):
                self._draw_last()
            if self._result.reason in ("detached", "hangup"):
                self._finish_input(self._result)
            if self._result.reason != "hangup":
                self._take_leave()
            if self._result.reason == "exited":
                self._drain()
            return self._result
        except SignalReceived as received:
            if received.number != signal.SIGHUP:
                self._take_leave()
            raise
        finally:
            self._take_answers()
            if self._connection is not None and (self._result is None or self._result.reason != "switched"):
                self._connection.close()

    @property
    def connection(self) -> DaemonConnection | None:
        """The connection, for the session that is shown next; None where it is lost."""
        return self._connection

    def _begin(self) -> None:
        """Ask the terminal, and attach, at once or when it has answered."""
        self._painter.take_over()
        self._terminal.ask()
        self._is_asking = self._questions.deadline is not None
        if self._connection is None:
            self._disconnect()
        elif not self._is_asking:  # else `_run_timers` attaches
            try:
                self._attach()
            except ConnectionLost:
                self._disconnect()

    def _turn(self) -> None:
        """Wait for a descriptor or for the next deadline, and handle what is ready."""
        terminal, connection = self._terminal, self._connection
        reading: list[int | DaemonConnection] = [terminal.wake_fd]
        writing: list[int | DaemonConnection] = [terminal.output_fd] if terminal.pending else []
        # Back-pressure in both directions is not to select: what is not read here fills the kernel's buffer, and
        # then its writer waits. A paste stops in the terminal's own queue, a flood in the socket.
        if connection is None or not self._input.is_full:
            reading.append(terminal.input_fd)
        if connection is not None and not self._painter.is_waiting and terminal.pending < MAX_PENDING_BYTES:
            reading.append(connection)
        if connection is not None and connection.has_unsent:
            writing.append(connection)
        # A signal does not end this select by itself (PEP 475: it is called again after EINTR): the wakeup
        # descriptor does, which is why `wake_fd` is always among those that are read.
        readable, writable, _ = select.select(reading, writing, [], self._timeout())
        if terminal.input_fd in readable:
            self._read_keys()
        if terminal.wake_fd in readable:
            self._handle_signals()
        if terminal.output_fd in writable:
            terminal.flush()
        if connection is not None and self._result is None:
            if connection in writable:
                connection.flush()
            if connection in readable:
                self._receive(connection)
        self._run_timers()

    def _timeout(self) -> float | None:
        """Return the seconds until the next deadline; None where there is none."""
        deadlines = [self._flush_keys_at, self._input.retry_at, self._questions.flush_at, self._painter.deadline]
        deadlines.append(self._resize_at)
        if self._is_asking:
            deadlines.append(self._questions.deadline or 0.0)
        if self._reconnect.is_active:
            deadlines.append(self._reconnect.next_deadline(connected=self._connection is not None))
        found = [deadline for deadline in deadlines if deadline is not None]
        return max(0.0, min(found) - time.monotonic()) if found else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        if self._painter.deadline is not None and now >= self._painter.deadline:
            self._handle_keys(self._painter.give_up())
            self._settle()
        if self._questions.flush_at is not None and now >= self._questions.flush_at:
            self._handle_keys(self._questions.flush())
        if self._is_asking:
            deadline = self._questions.deadline
            # Also when the user leaves already: what was typed before is sent.
            self._is_asking = deadline is not None and now < deadline and self._result is None
            if not self._is_asking and self._connection is not None:
                self._attach()
        if self._resize_at is not None and now >= self._resize_at:
            self._resize_at = None
            self._resize()
        if self._flush_keys_at is not None and now >= self._flush_keys_at:
            self._flush_keys_at = None
            self._send_input(self._keys.flush())
        if self._input.retry_at is not None and now >= self._input.retry_at:
            self._input.retry()
        if self._reconnect.is_active and self._result is None:
            self._try_reconnect(now)

    def _try_reconnect(self, now: float) -> None:
        self._reconnect.check_deadline(now)
        if self._reconnect.should_notify(now):
            hint = self._options.detach_key.hint
            line = status_line(f"orbitd has gone; waiting for it, and keys are lost. {hint}")
            # What is at the bottom moves up for it.
            self._terminal.show((b"" if self._terminal.output_filter.alternate else scroll_in_place()) + line)
        if self._connection is None and (stream := self._reconnect.attempt(now)) is not None:
            self._connection = DaemonConnection(stream)
            self._attach()  # the outage is over when this is answered, see `_attached`

    def _drain(self) -> None:
        """Write what the terminal has not taken yet; the detach key or a hangup ends the wait."""
        terminal = self._terminal
        while terminal.pending:
            readable, writable, _ = select.select([terminal.input_fd], [terminal.output_fd], [])
            if writable:
                terminal.flush()
            data = terminal.read() if readable else None
            if data is not None and (not data or self._keys.feed(data)[1]):
                return

    def _finish_input(self, result: AttachResult) -> None:
        """Send what was typed before the client leaves, wait until it has been taken, and count what was not.

        Keys are not read meanwhile: what is typed now is for the user's shell. Output is shown, as long as the terminal
        takes it.
        """
        deadline = time.monotonic() + LEAVE_SECS
        cancel_at: float | None = deadline - CANCEL_SECS
        try:
            self._input.finish()
            while (connection := self._connection) is not None and not self._input.is_finished:
                now = time.monotonic()
                if now >= deadline or self._result is not result:
                    break  # the program may have ended
                if cancel_at is not None and now >= cancel_at:
                    cancel_at = None
                    self._input.cancel()
                if self._input.retry_at is not None and now >= self._input.retry_at:
                    self._input.retry()
                due = min(each for each in (deadline, cancel_at, self._input.retry_at) if each is not None)
                self._exchange(connection, max(0.0, due - now))
        except ConnectionLost:
            pass
        if self._result is result:
            self._result = result._replace(not_taken=self._input.not_taken)

    def _exchange(self, connection: DaemonConnection, secs: float) -> None:
        """Wait so long at most for the daemon, and send and receive what is ready. Raises: ConnectionLost."""
        writing = [connection] if connection.has_unsent else []
        readable, writable, _ = select.select([connection], writing, [], secs)
        if writable:
            connection.flush()
        if readable:
            self._receive_last(connection)

    def _receive_last(self, connection: DaemonConnection) -> None:
        if self._terminal.pending < MAX_PENDING_BYTES:
            self._receive(connection)
            return
        # The terminal is stopped, or slow. The answers are behind output that it will not show any more.
        self._messages.extend(message for message in connection.receive() if message.method != OUTPUT)
        self._handle_messages(connection)

    # From the terminal

    def _read_keys(self) -> None:
        data = self._terminal.read()
        if data is None:
            return
        if not data:
            self._result = AttachResult(reason="hangup")
            return
        now = time.monotonic()
        typed = self._questions.receive(self._painter.receive(data, now), now)
        try:
            if self._painter.is_answered:
                self._settle()
        finally:
            self._handle_keys(typed)

    def _handle_keys(self, data: bytes) -> None:
        if not data or self._result is not None:
            return
        passed, is_detach = self._keys.feed(data)
        self._flush_keys_at = time.monotonic() + PARTIAL_KEY_SECONDS if self._keys.is_partial else None
        if is_detach:
            self._result = AttachResult(reason="detached")
        self._send_input(passed)

    def _send_input(self, data: bytes) -> None:
        if not data or self._options.read_only:
            return
        if self._resize_at is not None and not self._needs_attachment:
            self._resize_at = None
            self._resize()  # the program is to have the key in the size that the user sees
        if self._connection is None:
            # A restart takes less than a second: what is typed during it is sent afterwards. Once the user has
            # been notified that keys are lost they are, or a minute's typing would arrive at once.
            queued = self._input.queued_bytes + len(data)
            if self._reconnect.user_notified or queued > MAX_INPUT_WHILE_DISCONNECTED:
                return
        self._input.put(data)

    def _handle_signals(self) -> None:
        found = self._terminal.signals()
        if signal.SIGTSTP in found:
            self._take_leave()
            self._take_answers()
            self._terminal.suspend()  # returns after SIGCONT
            found |= self._terminal.signals() | {signal.SIGCONT}
        if signal.SIGCONT in found:
            # A shell may have used the terminal meanwhile: its modes, its screen and its size are unknown. Only a
            # new attach brings a repaint, so this one is left. What still comes for it has another attachment_id.
            self._terminal.resume()
            self._painter.take_over()
            if self._connection is not None and not self._attach_request:
                self._attach_again()
        elif signal.SIGWINCH in found:
            self._painter.note_resize()
            self._was_resized = self._was_resized or self._terminal.size != self._requested_size
            if self._resize_at is None:
                self._resize()
            self._resize_at = time.monotonic() + RESIZE_SECS

    def _resize(self) -> None:
        """Have the session in the window's size: at once where that had not changed for a while, else when it has not.

        A window that had another size in between, and has the old one again, may have lost rows.
        """
        size, connection = self._terminal.size, self._connection
        if connection is None or not self._id:
            return
        if self._needs_attachment:
            self._attach_again()
        elif size != self._requested_size:
            self._requested_size, self._was_resized = size, False
            connection.notify(SESSION_RESIZE, {"attachment_id": self._id, "cols": size[0], "rows": size[1]})
        elif self._was_resized:
            self._window.mark_resized()
            self._attach_again()

    # From the daemon

    def _attach_again(self) -> None:
        """Replace the attachment, if there is one, by another: for a picture and the history behind the last one."""
        assert self._connection is not None
        self._input.pause()
        if self._id:
            self._connection.notify(SESSION_LEAVE, {"attachment_id": self._id})
        self._id = ""
        self._attach()

    def _attach(self) -> None:
        assert self._connection is not None
        self._painter.drop_waiting()
        self._is_asking = self._needs_attachment = self._was_resized = False
        self._requested_size = cols, rows = self._terminal.size
        options, is_first = self._options, not self._window.is_known
        lines = options.scrollback_lines
        if not is_first or lines is None:
            lines = 0 if not (is_first or self._counts_lines) else MAX_HISTORY_LINES
        # With a line given, 0 too, the daemon counts lines for this client, and says at the end where it was.
        after_line = 0
        if not is_first:
            after_line = self._window.after_line
        elif options.scrollback_lines is None:
            after_line = options.mark.load() or 0 if options.mark is not None else 0
            self._window.begin(after_line)
        self._asked_line = after_line
        params: dict[str, Any] = {
            "id": options.session_id,
            "cols": cols,
            "rows": rows,
            "read_only": options.read_only,
            "scrollback_lines": lines,
            "after_line": after_line if self._counts_lines else None,
            **_environment(options.env),
            "terminal": self._questions.terminal(),
            "before": self._before,
        }
        # What is left out has its default: an earlier daemon does not know all of these.
        params = {name: value for name, value in params.items() if value is not None}
        self._attach_request = self._connection.request(SESSION_ATTACH, params)

    def _attached(self, connection: DaemonConnection, answer: Message) -> None:
        """Handle the answer to `session.attach`."""
        if answer.error is not None:
            error = from_object(answer.error)
            if isinstance(error, InvalidParams) and self._drop_newest_param():
                self._attach()
                return
            if isinstance(error, Busy | ShuttingDown):  # full, or about to stop: try again later
                raise ConnectionLost(error.message)
            if isinstance(error, LiveUnavailable) and self.was_attached:  # the daemon has not reached the keeper yet
                raise ConnectionLost(error.message)
            raise error
        self._attach_request = 0
        cols, rows = self._requested_size
        # Before anything is taken from it: an answer that is none would begin one outage after the other.
        try:
            result, session = answer.result, answer.result["session"]
            named = Named(session["id"], session["name"])
            history = {"data": bytes_of(result["repaint"]), "history_line": result.get("history_line", 0)}
            picture = Notice(cols=cols, rows=rows, **history)
            attachment_id = result["attachment_id"]
            is_readable = isinstance(attachment_id, str) and isinstance(named.id, str)
            is_readable &= isinstance(named.name, str | None) and isinstance(picture.history_line, int | None)
        except (LookupError, TypeError, ValueError, AttributeError):
            is_readable = False
        if not is_readable:
            raise CommandError(
                f"the daemon's answer to {SESSION_ATTACH} cannot be read",
                ExitCode.PROTOCOL,
                hint="Another program, or another version, seems to serve this socket; run `orbitctl doctor`.",
            )
        self._id, self.session = attachment_id, named
        if not self.was_attached and self._options.shown is not None:
            self._options.shown.add(self.session.id)
        self.was_attached = True
        self._reconnect.stop()
        self._input.start(connection, self._id)
        if self._window.is_known and self._window.after_line < self._asked_line:
            self._painter.skip()  # the last picture has turned out to be drawn wrongly since the request was sent
            self._attach_later()
        else:
            self._paint(picture)
        if self._resize_at is None:
            self._resize()  # the window may have changed since the request was sent
        self._reconnect.prepare()

    def _drop_newest_param(self) -> bool:
        """Have the next attach do without a param that an earlier daemon does not know; return whether there is one."""
        if self._before is not None:  # it cannot switch windows
            self._before = None
        elif self._counts_lines:  # it gives all lines that it is asked for, and no line numbers
            self._counts_lines = False
        else:
            return False
        return True

    def _receive(self, connection: DaemonConnection) -> None:
        """Handle the messages that have come."""
        self._messages.extend(connection.receive())
        self._handle_messages(connection)

    def _handle_messages(self, connection: DaemonConnection) -> None:
        """Handle messages until a picture has to wait; output is joined, so that a batch is one write."""
        output: list[bytes] = []
        while self._messages and not self._painter.is_waiting:
            message = self._messages.popleft()
            if message.method == OUTPUT:
                # Another attachment's was sent before the daemon had read `session.leave`.
                if message.params.attachment_id == self._id:
                    output.append(message.params.data)
                continue
            self._show(output)  # what came before stays before
            if not message.method:
                self._handle_answer(connection, message)
            elif message.params.attachment_id == self._id:
                self._handle_notice(message.method, message.params)
        self._show(output)

    def _handle_answer(self, connection: DaemonConnection, answer: Message) -> None:
        if answer.id is None:
            return
        if answer.id == self._attach_request:
            self._attached(connection, answer)
            return
        try:
            self._handle_small_answer(answer.id, answer)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ConnectionLost(f"an answer of the daemon cannot be read: {error}") from error

    def _handle_small_answer(self, request_id: int, answer: Message) -> None:
        """Handle the answer to anything but an attach. Raises: ConnectionLost; what is no such answer, any of these."""
        if request_id == self._leave_request:
            self._leave_request = 0
            if answer.error is None:
                self._save_mark((answer.result or {}).get("history_line"))
        elif request_id == self._screen_request:
            self._screen_request = 0
            if answer.error is None:
                self._set_rows_below(answer.result)
        else:
            self._input.handle_answer(request_id, answer.error, time.monotonic())

    def _handle_notice(self, method: str, notice: Notice) -> None:
        if method == REPAINT:
            if not self._needs_attachment:
                self._paint(notice)
        elif method == EXITED:
            if self._needs_attachment or self._window.is_resized:
                raise NotRunning("The program has ended")  # its last screen is still to be shown
            self._save_mark(notice.history_line)
            self._result = AttachResult(reason="exited", exit_code=notice.exit_code, exit_signal=notice.exit_signal)
            self._id = ""
        elif method == DETACHED:
            self._save_mark(notice.history_line)
            if notice.session_id is None:
                self._result = AttachResult(reason="detached_elsewhere")
            else:
                self._result = AttachResult(reason="switched", session_id=notice.session_id)
            self._id = ""

    # To the terminal

    def _show(self, output: list[bytes]) -> None:
        """Show output, and forget it here."""
        if not output:
            return
        self._painter.show(b"".join(output))
        output.clear()
        if self._painter.is_stale and self._connection is not None:
            self._attach_again()

    def _paint(self, notice: Notice) -> None:
        if self._painter.paint(notice):
            self._attach_later()

    def _settle(self) -> None:
        """Go on: the terminal has answered where its cursor is, or will not."""
        if self._painter.settle(can_attach=bool(self._id)):
            self._attach_later()
        if self._connection is not None:
            self._handle_messages(self._connection)

    def _attach_later(self) -> None:
        """Have a new attachment when the window's size has been the same for a while."""
        self._needs_attachment, self._resize_at = True, time.monotonic() + RESIZE_SECS

    # Leaving

    def _draw_last(self) -> None:
        """Draw what has waited for the terminal, and what came behind it."""
        self._take_answers()
        self._painter.leave()
        if self._connection is not None:
            self._handle_messages(self._connection)

    def _take_leave(self) -> None:
        """Ask the daemon what leaving the window takes, and leave the session: within a bounded time."""
        connection = self._connection
        if connection is None or self._attach_request:
            self._save_own_mark()
            return
        deadline = time.monotonic() + FAREWELL_SECS
        try:
            self._draw_last()
            self._screen_request = connection.request(SESSION_SCREEN, {"id": self._options.session_id})
            if self._id:
                self._leave_request = connection.request(SESSION_LEAVE, {"attachment_id": self._id})
            while (left := deadline - time.monotonic()) > 0 and (self._leave_request or self._screen_request):
                self._exchange(connection, left)
        except (ConnectionLost, OrbitError):
            pass  # the daemon has gone, or ends
        if self._leave_request:  # not answered: it has gone, or the machine is busy
            self._save_own_mark()
        self._leave_request, self._screen_request, self._id = 0, 0, ""

    def _take_answers(self) -> None:
        """Wait for the terminal's answers, or the user's shell would read them."""
        self._questions.receive(self._painter.take_answers(), time.monotonic())

    def _set_rows_below(self, screen: dict[str, Any]) -> None:
        """Set how far the session's text goes on below the cursor, if the window shows all of it."""
        if (screen["cols"], screen["rows"]) == self._terminal.size and not self._window.is_frame:
            self._terminal.rows_below = rows_below(screen["data"], screen["cols"], screen["cursor"]["row"])

    def _save_mark(self, line: int | None) -> None:
        """Remember which history the window has: up to a line, or to where it began to show parts of the picture."""
        line = self._window.leave(line)
        if line is not None and self.was_attached and self._options.mark is not None:
            self._options.mark.save(line)

    def _save_own_mark(self) -> None:
        """Remember what was printed for certain, where the daemon does not say what the window has."""
        self._save_mark(self._window.after_line if self._window.is_known else None)

    def _disconnect(self) -> None:
        """Close a lost connection, and begin an outage or go on with it."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._id, self._attach_request = None, "", 0
        self._messages.clear()
        self._painter.drop_waiting()
        self._is_asking = self._needs_attachment = False  # `Reconnect` attaches
        self._input.stop()
        self._reconnect.start(time.monotonic())


def scroll_in_place() -> bytes:
    """Return bytes that move the primary screen up by a row; the cursor stays at the same place of the screen."""
    return b"\x1b7" + LINES_UP + b"\n\x1b8"


def status_line(text: str) -> bytes:
    """Return bytes that show a line at the bottom of the screen until the next repaint.

    CAN and ST end whatever sequence the program's output was in the middle of. The cursor is saved and
    restored (DECSC, DECRC); the scrolling margins are reset, and the next repaint sets them.
    """
    return f"\x18\x1b\\\x1b7\x1b[r\x1b[999;1H\x1b[0;7m {text.strip()} \x1b[m\x1b[K\x1b8".encode()
