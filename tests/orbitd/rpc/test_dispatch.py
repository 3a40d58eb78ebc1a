"""Dispatch: every example of the JSON-RPC 2.0 specification's section 7, and what it leaves open."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Any

import msgspec
import pytest

from orbit_protocol.errors import SessionNotFound, ShuttingDown
from orbit_protocol.methods import METHODS, Method
from orbitd.rpc.dispatch import MAX_BATCH, Dispatcher, Handlers, refuse


class ByName(msgspec.Struct, forbid_unknown_fields=True):
    minuend: int
    subtrahend: int


async def subtract(_: None, q: ByName | tuple[int, int]) -> int:
    return q.minuend - q.subtrahend if isinstance(q, ByName) else q[0] - q[1]


async def add_up(_: None, q: list[int]) -> int:
    return sum(q)


async def get_data(_: None, __: Any) -> list[Any]:
    return ["hello", 5]


async def notify(_: None, __: Any) -> None:
    return None


async def fail(_: None, __: Any) -> None:
    raise RuntimeError("the secret of the daemon")


async def miss(_: None, __: Any) -> None:
    raise SessionNotFound("No session has the id 'x'")


TABLE: dict[str, tuple[Any, Any]] = {
    "subtract": (ByName | tuple[int, int], subtract),
    "sum": (list[int], add_up),
    "get_data": (Any, get_data),
    "update": (Any, notify),
    "notify_hello": (Any, notify),
    "notify_sum": (Any, notify),
    "fail": (Any, fail),
    "miss": (Any, miss),
}


@pytest.fixture(scope="module")
def dispatcher() -> Dispatcher[None]:
    handlers: Handlers[None] = Handlers()
    methods = {name: Method(name, params, Any, "An example.") for name, (params, _) in TABLE.items()}
    for name, (_, handler) in TABLE.items():
        handlers.add(methods[name], handler)
    return Dispatcher(handlers, methods)


def ask(dispatcher: Dispatcher[None], line: str | bytes) -> Any:
    answer = dispatcher.dispatch(line if isinstance(line, bytes) else line.encode(), None)
    if answer is not None and not isinstance(answer, bytes):
        answer = asyncio.run(answer)
    return None if answer is None else json.loads(answer)


def without_data(response: Any) -> Any:
    """The specification leaves `message` and `data` to us, so only codes are compared."""
    if isinstance(response, list):
        return [without_data(one) for one in response]
    if response is not None and "error" in response:
        return {**response, "error": response["error"]["code"]}
    return response


def error(code: int, request_id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": code, "id": request_id}


def result(value: Any, request_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value, "id": request_id}


SECTION_7: list[tuple[str, str, Any]] = [
    ("positional 1", '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', result(19, 1)),
    ("positional 2", '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', result(-19, 2)),
    (
        "named 1",
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        result(19, 3),
    ),
    (
        "named 2",
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        result(19, 4),
    ),
    ("notification 1", '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ("notification 2", '{"jsonrpc": "2.0", "method": "foobar"}', None),
    ("no such method", '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error(-32601, "1")),
    ("invalid JSON", '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(-32700)),
    ("invalid request", '{"jsonrpc": "2.0", "method": 1, "params": "bar"}', error(-32600)),
    (
        "batch, invalid JSON",
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
        error(-32700),
    ),
    ("empty batch", "[]", error(-32600)),
    ("invalid batch of one", "[1]", [error(-32600)]),
    ("invalid batch", "[1,2,3]", [error(-32600), error(-32600), error(-32600)]),
    (
        "batch",
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]""",
        [result(7, "1"), result(19, "2"), error(-32600), error(-32601, "5"), result(["hello", 5], "9")],
    ),
    (
        "batch of notifications",
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
]


@pytest.mark.parametrize(("line", "expected"), [case[1:] for case in SECTION_7], ids=[case[0] for case in SECTION_7])
def test_section_7(dispatcher: Dispatcher[None], line: str, expected: Any) -> None:
    """Each example of the specification is answered as it is printed there."""
    assert without_data(ask(dispatcher, line)) == expected


OPEN_CASES: list[tuple[str, str | bytes, Any]] = [
    ("params null", '{"jsonrpc": "2.0", "method": "get_data", "params": null, "id": 1}', error(-32600, 1)),
    ("params a string", '{"jsonrpc": "2.0", "method": "get_data", "params": "a", "id": 1}', error(-32600, 1)),
    ("extra members", '{"jsonrpc": "2.0", "method": "get_data", "id": 1, "trace": {}}', result(["hello", 5], 1)),
    ("id null", '{"jsonrpc": "2.0", "method": "get_data", "id": null}', result(["hello", 5], None)),
    ("id a fraction", '{"jsonrpc": "2.0", "method": "get_data", "id": 1.5}', result(["hello", 5], 1.5)),
    (
        "id of 30 digits",
        '{"jsonrpc": "2.0", "method": "get_data", "id": 123456789012345678901234567890}',
        result(["hello", 5], 123456789012345678901234567890),
    ),
    ("id true", '{"jsonrpc": "2.0", "method": "get_data", "id": true}', error(-32600)),
    ("id an object", '{"jsonrpc": "2.0", "method": "get_data", "id": {}}', error(-32600)),
    ("version 1.0", '{"jsonrpc": "1.0", "method": "get_data", "id": 7}', error(-32600, 7)),
    ("no version", '{"method": "get_data", "id": 7}', error(-32600, 7)),
    ("no method", '{"jsonrpc": "2.0", "id": 7}', error(-32600, 7)),
    ("method a number", '{"jsonrpc": "2.0", "method": 1, "id": 7}', error(-32600, 7)),
    ("a number", "1", error(-32600)),
    ("a string", '"get_data"', error(-32600)),
    ("null", "null", error(-32600)),
    ("an id beyond floats", '{"jsonrpc": "2.0", "method": "get_data", "id": 1e400}', error(-32600)),
    ("a NUL", b"\x00", error(-32700)),
    ("a NUL in a string", b'{"jsonrpc": "2.0", "method": "a\x00", "id": 1}', error(-32700)),
    ("invalid UTF-8", b'{"jsonrpc": "2.0", "method": "\xff", "id": 1}', error(-32700, 1)),
    ("a lone surrogate", '{"jsonrpc": "2.0", "method": "\\ud800", "id": 1}', error(-32700)),
    ("a byte order mark", b'\xef\xbb\xbf{"jsonrpc": "2.0", "method": "get_data", "id": 1}', error(-32700)),
    ("nested lists", b"[" * 100_000, error(-32700)),
    ("nested objects", b'{"a":' * 100_000, error(-32700)),
    ("two objects", '{"jsonrpc": "2.0", "method": "get_data", "id": 1}{}', error(-32700)),
    ("NaN", '{"jsonrpc": "2.0", "method": "sum", "params": [NaN], "id": 1}', error(-32700)),
    ("wrong params", '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 1}, "id": 1}', error(-32602, 1)),
    ("unknown param", '{"jsonrpc": "2.0", "method": "subtract", "params": {"x": 1}, "id": 1}', error(-32602, 1)),
    ("a failing notification", '{"jsonrpc": "2.0", "method": "fail"}', None),
    ("a notification with wrong params", '{"jsonrpc": "2.0", "method": "subtract", "params": {}}', None),
]


@pytest.mark.parametrize(("line", "expected"), [case[1:] for case in OPEN_CASES], ids=[case[0] for case in OPEN_CASES])
def test_what_the_specification_leaves_open(dispatcher: Dispatcher[None], line: str | bytes, expected: Any) -> None:
    """Garbage is answered with the right code, and with its id where one can be read."""
    assert without_data(ask(dispatcher, line)) == expected


def test_an_error_carries_kind_hint_and_retryable(dispatcher: Dispatcher[None]) -> None:
    """A handler's OrbitError is answered with its code, message, kind, hint and whether to try again."""
    answer = ask(dispatcher, '{"jsonrpc": "2.0", "method": "miss", "id": 1}')
    assert answer["error"] == {
        "code": 1000,
        "message": "No session has the id 'x'",
        "data": {
            "kind": "session_not_found",
            "hint": "session.list shows the sessions there are.",
            "retryable": False,
        },
    }


@pytest.mark.parametrize("line", [case[1] for case in OPEN_CASES + SECTION_7])
def test_every_error_has_data(dispatcher: Dispatcher[None], line: str | bytes) -> None:
    """Whoever makes an error, the library or a handler, it has our three members."""
    answer = ask(dispatcher, line)
    answers = answer if isinstance(answer, list) else [answer]
    errors = [one["error"] for one in answers if one and "error" in one]
    assert all({"kind", "hint", "retryable"} <= set(one["data"]) for one in errors)


def test_an_unexpected_exception_is_not_told(dispatcher: Dispatcher[None], caplog: pytest.LogCaptureFixture) -> None:
    """An exception's text stays inside; answer and log share a reference."""
    answer = ask(dispatcher, '{"jsonrpc": "2.0", "method": "fail", "id": 1}')
    assert answer["error"]["code"] == -32603
    assert "secret" not in json.dumps(answer) + caplog.text
    reference = answer["error"]["data"]["reference"]
    assert [record.fields["reference"] for record in caplog.records] == [reference]  # type: ignore[attr-defined]


class _Odd(msgspec.Struct):
    """Params whose check fails in a way that it should not."""

    def __post_init__(self) -> None:
        raise KeyError("the secret of the daemon")


async def cancel(_: None, __: Any) -> None:
    raise asyncio.CancelledError


def raise_unencodable(_: None, __: Any) -> None:
    raise SessionNotFound("\ud800", data={"secret": object()})


async def raise_unencodable_later(_: None, __: Any) -> None:
    raise SessionNotFound("\ud800", data={"secret": object()})


async def return_later(_: None, __: Any) -> object:
    return object()


def cancel_at_once(_: None, __: Any) -> None:
    raise asyncio.CancelledError


def recurse(_: None, __: Any) -> None:
    recurse(None, None)


def run_out_of_memory(_: None, __: Any) -> None:
    raise MemoryError


async def run_out_of_memory_later(_: None, __: Any) -> None:
    raise MemoryError


async def wait_for_what_is_cancelled(_: None, __: Any) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def list_that_holds_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def refuse_smuggling(_: None, __: Any) -> None:
    raise SessionNotFound("x", data={"layout": msgspec.Raw(b"[\n]")})


@pytest.mark.parametrize(
    ("params", "handler"),
    [
        (_Odd, lambda _, __: None),
        (Any, lambda _, __: object()),
        (Any, lambda _, __: "\ud800"),
        (Any, return_later),
        (Any, lambda _, __: 1 / 0),
        (Any, fail),
        (Any, cancel),
        (Any, raise_unencodable),
        (Any, raise_unencodable_later),
        (Any, cancel_at_once),
        (Any, wait_for_what_is_cancelled),
        (Any, recurse),
        (Any, run_out_of_memory),
        (Any, run_out_of_memory_later),
        (Any, lambda _, __: list_that_holds_itself()),
        (Any, lambda _, __: msgspec.Raw(b'{\n"jsonrpc":"2.0","id":1,"result":{}}')),
        (Any, refuse_smuggling),
        (Any, lambda _, __: {1: 2, "a": {3j: 4}}),
        (Any, lambda _, __: iter(())),
        (Any, lambda _, __: Exception()),
    ],
)
def test_whatever_fails_is_answered(params: Any, handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A check, a handler or a result that fails in any way is an internal error with the request's id, and logged."""
    method: Method[Any, Any] = Method("odd", params, Any, "An example.")
    handlers: Handlers[None] = Handlers()
    handlers.add(method, handler)
    dispatcher = Dispatcher(handlers, {"odd": method})
    answer = ask(dispatcher, '{"jsonrpc": "2.0", "method": "odd", "params": {}, "id": 7}')
    assert (answer["id"], answer["error"]["code"]) == (7, -32603)
    assert "secret" not in json.dumps(answer) + caplog.text
    assert len(caplog.records) == 1
    assert ask(dispatcher, '{"jsonrpc": "2.0", "method": "odd", "params": {}}') is None
    item = '{"jsonrpc": "2.0", "method": "odd", "params": {}, "id": %d}'
    batch = ask(dispatcher, f'[{item % 1}, 7, {{"jsonrpc": "2.0", "method": "odd"}}, {item % 2}]')
    assert [(one["id"], one["error"]["code"]) for one in batch] == [(1, -32603), (None, -32600), (2, -32603)]


def test_a_line_that_memory_has_no_room_for_is_answered(
    dispatcher: Dispatcher[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even reading a request fails, it is answered under its id, and the items of a batch one by one."""
    line = '{"jsonrpc": "2.0", "method": "get_data", "id": 5}'

    class Full:
        def decode(self, _: bytes) -> None:
            raise MemoryError

    monkeypatch.setattr("orbitd.rpc.dispatch._envelopes", Full())
    assert without_data(ask(dispatcher, line)) == error(-32603, 5)
    assert without_data(ask(dispatcher, f"[{line}, {line}]")) == [error(-32603, 5)] * 2
    monkeypatch.setattr("orbitd.rpc.dispatch._items", Full())
    assert without_data(ask(dispatcher, f"[{line}, {line}]")) == error(-32603)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "line",
    [
        '{{"jsonrpc": "2.0", "method": "get_data", "params": {}, "id": 1}}',
        '{{"jsonrpc": "2.0", "method": "get_data", "id": 1, "trace": {}}}',
        '{{"trace": {}, "jsonrpc": "2.0", "method": "get_data", "id": 1}}',
        '{{"jsonrpc": "2.0", "method": "get_data", "params": {{}}, "id": {}}}',
        '{{"jsonrpc": "2.0", "method": "no.such", "params": {}, "id": 1}}',
        "[{}]",
        "[{}",
        '{{"jsonrpc": "2.0", "method": "\\ud800", "params": {}, "id": 1}}',
        '\udcff{{"a": {}}}',
    ],
)
def test_nesting_deeper_than_512_is_refused_unread(dispatcher: Dispatcher[None], line: str) -> None:
    """Whether what is nested is used, skipped, broken or not UTF-8, 513 levels are a parse error, and 512 are read."""
    over = ask(dispatcher, line.format(nested(512)).encode(errors="surrogateescape"))
    assert without_data(over) == error(-32700)
    assert over["error"]["message"] == "The JSON is nested deeper than 512"
    within = ask(dispatcher, line.format(nested(511)).encode(errors="surrogateescape"))
    assert "deeper" not in json.dumps(within)
    line_512 = line.format(nested(512)).encode(errors="surrogateescape")
    assert json.loads(refuse(line_512, ShuttingDown("Stopping")) or b"")["error"]["code"] == -32700


def test_a_line_of_many_brackets_is_no_deep_one(dispatcher: Dispatcher[None]) -> None:
    """Brackets that stand beside each other or in strings do not count."""
    params = f'[{"[]," * 5000} "{"[" * 5000}"]'
    answer = ask(dispatcher, f'{{"jsonrpc": "2.0", "method": "get_data", "params": {params}, "id": 1}}')
    assert answer == result(["hello", 5], 1)


@pytest.mark.parametrize(
    ("error", "words", "remedy"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "file descriptor", "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "file descriptor", "ulimit -n"),
        (RuntimeError("can't start new thread"), "thread", "ulimit -u"),
    ],
)
def test_what_there_is_too_little_of_is_busy(error: Exception, words: str, remedy: str) -> None:
    """A handler that finds no descriptor or thread is answered with an error that a client can retry.

    Its hint names the limit that is to be raised.
    """
    method = Method("example", Any, Any, "An example.")
    handlers: Handlers[None] = Handlers()

    def fail(_: None, __: Any) -> None:
        raise error

    handlers.add(method, fail)
    answer = Dispatcher(handlers, {"example": method}).dispatch(
        b'{"jsonrpc": "2.0", "method": "example", "id": 1}', None
    )
    assert isinstance(answer, bytes)
    found = json.loads(answer)["error"]
    assert (found["code"], found["data"]["retryable"]) == (-32000, True)
    assert words in found["message"]
    assert remedy in found["data"]["hint"]


class Recorder:
    """A caller that records how its requests were answered."""

    in_reserve = False

    def __init__(self) -> None:
        self.settled: list[bool] = []

    def settle(self, *, succeeded: bool) -> None:
        self.settled.append(succeeded)


@pytest.mark.parametrize("request_id", [', "id": 1', ""])
def test_the_caller_learns_how_each_request_was_answered(request_id: str) -> None:
    """A result that cannot be encoded has failed like an error of the handler; in a batch each item counts."""
    methods = {name: Method(name, Any, Any, "An example.") for name in ("good", "bad", "raises")}
    handlers: Handlers[Recorder] = Handlers()
    handlers.add(methods["good"], lambda _, __: "\udce9")
    handlers.add(methods["bad"], lambda _, __: "\ud800")
    handlers.add(methods["raises"], lambda _, __: 1 / 0)
    item = '{{"jsonrpc": "2.0", "method": "{}"' + request_id + "}}"
    caller = Recorder()
    waiting = Dispatcher(handlers, methods).dispatch(
        f"[{','.join(item.format(name) for name in methods)}]".encode(), caller
    )
    assert asyncio.iscoroutine(waiting)
    asyncio.run(waiting)
    # Nobody waits for the result of a notification, so that it is not encoded.
    assert caller.settled == ([True, False, False] if request_id else [True, True, False])


def test_a_handler_that_never_waits_needs_no_loop() -> None:
    """A plain function is answered at once; a coroutine function by a coroutine."""
    methods = {name: Method(name, Any, Any, "An example.") for name in ("plain", "waits")}
    handlers: Handlers[None] = Handlers()
    handlers.add(methods["plain"], lambda _, __: 1)
    handlers.add(methods["waits"], get_data)
    dispatcher = Dispatcher(handlers, methods)
    assert dispatcher.dispatch(b'{"jsonrpc": "2.0", "method": "plain", "id": 1}', None) == (
        b'{"jsonrpc":"2.0","result":1,"id":1}'
    )
    waiting = dispatcher.dispatch(b'{"jsonrpc": "2.0", "method": "waits", "id": 1}', None)
    assert asyncio.iscoroutine(waiting)
    assert json.loads(asyncio.run(waiting) or b"") == result(["hello", 5], 1)


def test_a_batch_has_a_limit(dispatcher: Dispatcher[None]) -> None:
    """A hundred requests are answered in their order, one more is refused as a whole."""
    one = '{{"jsonrpc": "2.0", "method": "sum", "params": [{0}], "id": {0}}}'
    full = ask(dispatcher, "[" + ",".join(one.format(i) for i in range(MAX_BATCH)) + "]")
    assert full == [result(i, i) for i in range(MAX_BATCH)]
    over = ask(dispatcher, "[" + ",".join(one.format(i) for i in range(MAX_BATCH + 1)) + "]")
    assert without_data(over) == error(-32600)


def test_a_batch_runs_in_order() -> None:
    """A later item begins when the one before it has ended."""
    seen: list[str] = []

    async def slow(_: None, q: dict[str, str]) -> None:
        seen.append("begin " + q["name"])
        await asyncio.get_running_loop().run_in_executor(None, int)
        seen.append("end " + q["name"])

    handlers: Handlers[None] = Handlers()
    method: Method[Any, Any] = Method("slow", dict[str, str], None, "Slow.")
    handlers.add(method, slow)
    item = '{"jsonrpc": "2.0", "method": "slow", "params": {"name": "%s"}, "id": 1}'
    ask(Dispatcher(handlers, {"slow": method}), "[" + item % "a" + "," + item % "b" + "]")
    assert seen == ["begin a", "end a", "begin b", "end b"]


def test_a_method_without_a_handler_stops_the_start() -> None:
    """A table and handlers that differ are an error that names the method."""
    with pytest.raises(LookupError, match=r"daemon\.ping"):
        Dispatcher(Handlers[None](), {"daemon.ping": METHODS["daemon.ping"]})
