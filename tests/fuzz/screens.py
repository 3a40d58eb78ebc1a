"""Output of all kinds that terminal emulations fail at, from a seed, and a real daemon whose sessions print it.

The suite feeds a few seeds (`test_fuzz_screens.py`), `python -m benchmarks.soak --screens N` as many as wanted. Nothing
here knows what emulates the terminal: it is the daemon, its other sessions and its next start that are looked at.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import select
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import WAIT_SECS, DaemonProcess, RawClient

PICTURE_SECS = 120.0
"""How long a session's own picture may take: it may have to be given up in pieces first, each after its CPU limit."""
MAX_SIDE, MAX_CELLS = 4096, 1_000_000
PRINTER = (
    'stty raw -echo; while read -r number < "$1"; do cat "$2/$number"; echo "$number" > "$3"; done; exec sleep 1000000'
)
ECHO = "sh -c 'stty raw -echo; exec cat'"

Step = bytes | tuple[int, int]

SIZES = (
    *[(1, 1)] * 4,
    *[(80, 24)] * 3,
    *((1, 2), (2, 1), (2, 3), (40, 10), (200, 60), (1, 500), (500, 1), (1, 4096), (4096, 1), (4096, 244), (1000, 1000)),
    *((1, 65_535), (65_535, 1), (0, 24), (1001, 1000)),  # refused, and nothing comes of it
)
TEXT = [
    *"abcXYZ 0123~",
    "é",
    "你",
    "好",
    "ש",
    "☃",
    "ᄀ",
    "😀",
    "👩\u200d👩\u200d👧\u200d👦",
    "🇩🇪",
    "❤\ufe0f",
    "1\ufe0f\u20e3",
]
MARKS = ("\u0301", "\u0300", "\u20dd", "\u200d", "\ufe0f", "\u0e33", "\u1160", "\U000e0062")
NUMBERS = (0, 1, 2, 7, 79, 80, 999, 4096, 32_767, 65_535, 65_536, 99_999, 2**31 - 1, 2**32, 10**20)
MODES = (1, 3, 5, 6, 7, 25, 40, 45, 47, 66, 69, 95, 1000, 1003, 1006, 1047, 1048, 1049, 2004, 2026, 2027, 2031, 2048)
STRINGS = (
    b"\x1b]0;",
    b"\x1b]8;;",
    b"\x1b]52;c;",
    b"\x1b]4;",
    b"\x1bP+q",
    b"\x1bPq",
    b"\x1b_G",
    b"\x1bX",
    b"\x1b^",
    b"\x1b]9;",
)
QUESTIONS = (
    b"\x1b[c",
    b"\x1b[>c",
    b"\x1b[6n",
    b"\x1b[5n",
    b"\x1b[>q",
    b"\x1b[?2026$p",
    b"\x1b]11;?\x07",
    b"\x1bP$qm\x1b\\",
    b"\x05",
)


@dataclass(frozen=True)
class Case:
    """What happens to one session.

    Args:
        seed: All follows from it.
        size: Columns and rows that it starts with.
        steps: Output, and sizes that a client changes to.
    """

    seed: int
    size: tuple[int, int]
    steps: tuple[Step, ...]


def case(seed: int, *, scale: int = 1) -> Case:
    """Return the case of a seed.

    Args:
        seed: Any number.
        scale: How many times as much of what takes an emulation long.
    """
    rng = random.Random(seed)
    steps: list[Step] = []
    for _ in range(rng.randrange(2, 8)):
        if rng.random() < 0.3:
            steps.append(rng.choice(SIZES))
        else:
            steps.append(b"".join(rng.choice(SHAPES)(rng, scale) for _ in range(rng.randrange(1, 8))))
    if rng.random() < 0.3:  # the shape that ended a daemon each time that it started
        steps[rng.randrange(len(steps)) :] = [_links(rng, scale) + _clusters(rng, scale), (1, 1), _repeats(rng, scale)]
    return Case(seed, rng.choice(SIZES[:-4]), tuple(steps))


def _number(rng: random.Random) -> int:
    return rng.choice(NUMBERS) if rng.random() < 0.3 else rng.randrange(100)


def _text(rng: random.Random, scale: int) -> bytes:
    return "".join(rng.choices([*TEXT, "\r\n", "\t", "\b"], k=rng.choice((3, 90, 3_000)))).encode()


def _repeats(rng: random.Random, scale: int) -> bytes:
    one = f"{rng.choice(TEXT)}\x1b[{rng.choice(NUMBERS)}b".encode()
    return one * rng.choice((1, 2, 8 * scale))


def _alignment(rng: random.Random, scale: int) -> bytes:
    return b"\x1b#8" * rng.choice((1, 2, 4 * scale))


def _links(rng: random.Random, scale: int) -> bytes:
    names = [f"id={number};" if rng.random() < 0.5 else ";" for number in range(rng.choice((1, 2, 40 * scale)))]
    return "".join(
        f"\x1b]8;{name}http://x/{'y' * rng.choice((1, 50, 2_000))}\x1b\\{rng.choice(TEXT)}" for name in names
    ).encode()


def _clusters(rng: random.Random, scale: int) -> bytes:
    mode = rng.choice((b"\x1b[?2027h", b"\x1b[?2027l", b""))
    long = rng.choice(TEXT) + "".join(rng.choices(MARKS, k=rng.choice((1, 5, 300 * scale))))
    return mode + "".join([*rng.choices(TEXT[5:], k=rng.randrange(60)), long]).encode()


def _string(rng: random.Random, scale: int) -> bytes:
    body = rng.choice((b"x", b";", b"2027;", b"\xf0\x9f\x98\x80", b"A=B,"))
    end = rng.choice((b"", b"", b"\x1b\\", b"\x07", b"\x18", b"\x1b"))
    return rng.choice(STRINGS) + body * rng.choice((1, 120, 600, 14_000 * scale)) + end


def _reset(rng: random.Random, scale: int) -> bytes:
    return rng.choice(
        (b"\x1bc", b"\x1b[!p", b"\x1b[3J", b"\x1b[2J", b"\x1b[?3h", b"\x1b[?40h\x1b[?3h", b"\x1b[?3l", b"\x1b[22J")
    )


def _modes(rng: random.Random, scale: int) -> bytes:
    return b"".join(
        b"\x1b[?%d%s" % (rng.choice(MODES), rng.choice((b"h", b"l", b"s", b"r"))) for _ in range(rng.randrange(1, 9))
    )


def _controls(rng: random.Random, scale: int) -> bytes:
    finals = "ABCDEFGHIJKLMPSTXZ@`abdefgrsu"
    sent = [f"\x1b[{_number(rng)};{_number(rng)}{rng.choice(finals)}" for _ in range(rng.randrange(1, 40))]
    return "".join(sent).encode() + rng.choice(
        (b"", b"\x1bH", b"\x1b[5W", b"\x1b7", b"\x1b8", b"\x1bM" * 30, b"\x1bD" * 30)
    )


def _styles(rng: random.Random, scale: int) -> bytes:
    long = ";".join(str(_number(rng)) for _ in range(rng.choice((1, 4, 16, 33, 400))))
    colours = "".join(
        f"\x1b[{rng.choice((38, 48, 58))};2;{rng.randrange(256)};{number % 256};0mx"
        for number in range(rng.choice((1, 60, 900)))
    )
    return f"\x1b[{long}{rng.choice('mhlrp')}{colours}".encode()


def _images(rng: random.Random, scale: int) -> bytes:
    side = rng.choice((0, 1, 8, 10_000, 2**31))
    data = base64.b64encode(rng.randbytes(rng.randrange(200)))
    return b"\x1b_Ga=T,f=%d,s=%d,v=%d,i=%d;%s\x1b\\" % (
        rng.choice((24, 32, 100, 7)),
        side,
        side,
        rng.randrange(9),
        data,
    )


def _questions(rng: random.Random, scale: int) -> bytes:
    return b"".join(rng.choices(QUESTIONS, k=rng.choice((1, 20))))


def _keyboard(rng: random.Random, scale: int) -> bytes:
    return b"\x1b[>%du" % rng.randrange(40) * rng.choice((1, 300)) + b"\x1b[<%du" % _number(rng)


def _bytes(rng: random.Random, scale: int) -> bytes:
    return rng.randbytes(rng.choice((4, 40, 400)))


SHAPES: tuple[Callable[[random.Random, int], bytes], ...] = (
    *(_text, _repeats, _alignment, _links, _clusters, _string, _reset, _modes, _controls, _styles, _images, _questions),
    *(_keyboard, _bytes),
)


class Neighbour:
    """A session that echoes, attached to by a client that looks whether it still does.

    Args:
        daemon: Where it runs.
    """

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._asked = 0
        with daemon.client() as client:
            config = {"session_type": "local", "command": ECHO}
            self.id = client.call("session.create", config=config, name="neighbour")["id"]
            self.pid = client.call("session.start", id=self.id)["pid"]
        self.attach()

    def attach(self) -> None:
        """Attach, to this daemon or to the next one."""
        self._client = self._daemon.client()
        self._attachment = self._client.call("session.attach", id=self.id, cols=80, rows=24)["attachment_id"]

    def close(self) -> None:
        """Leave."""
        self._client.close()

    def check(self) -> None:
        """Have a ping and a line answered, and its program unharmed. Raises: AssertionError, OSError."""
        assert self._client.call("daemon.ping") == {"pong": True}
        assert self._client.call("session.get", id=self.id)["pid"] == self.pid
        self._asked += 1
        line = b"<%d>" % self._asked
        self._client.call("session.input", attachment_id=self._attachment, data=_encoded(line + b"\r\n"))
        shown = b""
        while line not in shown:
            shown += base64.b64decode(self._client.notice()["params"]["data"])


class Printer:
    """A session that prints what it is given, and a client at it.

    Args:
        daemon: Where it runs.
        size: Its columns and rows.
    """

    def __init__(self, daemon: DaemonProcess, size: tuple[int, int]) -> None:
        self._number = 0
        self._printed = self._received = 0
        self._folder = Path(os.path.realpath(daemon.home)) / f"p{sum(1 for _ in daemon.home.glob('p*'))}"
        self._folder.mkdir()
        asked, done = self._folder / "asked", self._folder / "done"
        for pipe in (asked, done):
            os.mkfifo(pipe)
        self._asked = os.open(asked, os.O_RDWR)
        self._done = os.open(done, os.O_RDWR | os.O_NONBLOCK)  # ours is a writer too, so that it never ends
        command = shlex.join(["sh", "-c", PRINTER, "printer", str(asked), str(self._folder), str(done)])
        self._client = daemon.client()
        self._client.socket.settimeout(PICTURE_SECS)
        self.id = self._client.call("session.create", config={"session_type": "local", "command": command})["id"]
        self.pid = self._client.call("session.start", id=self.id, cols=size[0], rows=size[1])["pid"]
        attached = self._client.call("session.attach", id=self.id, cols=size[0], rows=size[1])
        self._attachment = attached["attachment_id"]

    def close(self) -> None:
        """Leave; the session goes on."""
        self._client.close()
        for descriptor in (self._asked, self._done):
            os.close(descriptor)

    def do(self, step: Step) -> None:
        """Print bytes, and wait for them or a repaint; or change the size. Raises: AssertionError, OSError."""
        if isinstance(step, tuple):
            cols, rows = step
            answer = self._client.request("session.resize", attachment_id=self._attachment, cols=cols, rows=rows)
            is_possible = 0 < cols <= MAX_SIDE and 0 < rows <= MAX_SIDE and cols * rows <= MAX_CELLS
            assert "result" in answer or not is_possible, answer
            return
        self._number += 1
        (self._folder / str(self._number)).write_bytes(step)
        os.write(self._asked, b"%d\n" % self._number)
        self._printed += len(step)
        while self._received < self._printed:
            self._take(self._client.notice())
        assert select.select([self._done], [], [], WAIT_SECS)[0], "the program is held back"
        os.read(self._done, 64)

    def _take(self, notice: dict[str, Any]) -> None:
        assert notice["method"] in ("session.output", "session.repaint"), notice
        if notice["method"] == "session.output":
            self._received += len(base64.b64decode(notice["params"]["data"]))
        else:
            self._received = self._printed  # it stands for output that is not sent, nobody can tell how much

    def check(self) -> None:
        """Have its program alive and its picture answered. Raises: AssertionError, OSError."""
        check_session(self._client, self.id, self.pid)


class Fed:
    """A real daemon, a neighbour, and sessions that are fed.

    Args:
        daemon: A daemon that serves.
    """

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._pids: dict[str, int] = {}
        self.neighbour = Neighbour(daemon)

    def feed(self, one: Case) -> None:
        """Let a case happen to a new session, and look at the neighbour after each step. Raises: AssertionError."""
        with _naming(one.seed, self._daemon):
            printer = Printer(self._daemon, one.size)
            try:
                self._pids[printer.id] = printer.pid
                for step in one.steps:
                    printer.do(step)
                    self.neighbour.check()
                printer.check()
                self.neighbour.check()
            finally:
                printer.close()

    def restart(self, seeds: Sequence[int]) -> None:
        """Kill the daemon, start it again and look at everything; then end all that was fed. Raises: AssertionError."""
        with _naming(seeds, self._daemon):
            self.neighbour.close()
            self._daemon.kill()
            self._daemon.start()
            self.neighbour.attach()
            self.neighbour.check()
            with self._daemon.client() as client:
                client.socket.settimeout(PICTURE_SECS)
                for session_id, pid in self._pids.items():
                    check_session(client, session_id, pid)
                    self.neighbour.check()
                for session_id in self._pids:
                    client.call("session.signal", id=session_id, signal="KILL")
                    client.call("session.wait", id=session_id, timeout_secs=PICTURE_SECS)
                    client.call("session.delete", id=session_id)
            self._pids.clear()
            self.neighbour.check()

    def close(self) -> None:
        """Leave."""
        self.neighbour.close()


def check_session(client: RawClient, session_id: str, pid: int) -> None:
    """Have a session's program alive and its picture answered, whatever is on it. Raises: AssertionError, OSError."""
    found = client.call("session.get", id=session_id)
    assert (found["live"], found["pid"]) == (True, pid), found
    for options in ({"format": "text", "scrollback": True}, {"format": "vt"}):
        client.call("session.screen", id=session_id, **options)


@contextlib.contextmanager
def _naming(seeds: object, daemon: DaemonProcess) -> Iterator[None]:
    """Name the seeds in whatever goes wrong."""
    try:
        yield
    except (AssertionError, OSError, EOFError, ValueError, KeyError) as error:
        process = daemon.process
        status = None if process is None else process.poll()
        ended = "" if status is None else f"; orbitd has ended with {status}"
        raise AssertionError(
            f"seed {seeds}: {type(error).__name__}: {error}{ended}\n{daemon.log()[-2_000:]}"
        ) from error


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
