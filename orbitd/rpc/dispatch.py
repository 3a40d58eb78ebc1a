"""From one line of JSON to one line of JSON: JSON-RPC 2.0 over jsonrpcserver and msgspec.

Only this module answers. Handlers return a result or raise an `OrbitError`; anything else
that they raise is logged under a reference, and the peer gets the reference alone.

jsonrpcserver routes one request at a time, by the one function of it that does that. What it
leaves open is done here: a batch is split first, so that one bad item does not reject the
rest (specification, section 6) and its items run in order; `params` stay encoded until the
method is known, and are then decoded straight into its Struct.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from types import CoroutineType
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from jsonrpcserver import Result, Success
from jsonrpcserver.dispatcher import dispatch_request
from jsonrpcserver.request import Request
from msgspec import UNSET, Raw, Struct, UnsetType

from orbit_protocol import errors as e
from orbit_protocol.json_text import MAX_NESTING, is_nested_too_deep
from orbit_protocol.jsonrpc import encode_batch, encode_error, encode_result
from orbit_protocol.methods import METHODS, Method
from orbitd.descriptors import shortage
from orbitd.logs import event

MAX_BATCH = 100
MAX_BATCH_ANSWER_BYTES = 32 * 1024 * 1024

log = logging.getLogger("orbitd.rpc.dispatch")
logging.getLogger("jsonrpcserver").setLevel(logging.CRITICAL + 1)  # it would log params


class Caller(Protocol):
    """What a handler is given beside the params: whose request it is. The requests of a batch share it.

    Attributes:
        request_id: The id of the request that is being handled; UNSET of a notification.
        is_last_input: No input comes behind this request in its batch.
        in_reserve: Its connection is one that is kept back, for some methods only.
    """

    request_id: Any
    is_last_input: bool
    in_reserve: bool

    def settle(self, *, succeeded: bool) -> None:
        """Called once the answer is encoded: with the result of the request that was just handled, or an error."""

    def begin_wait(self) -> None:
        """Take none of the places in flight until the request is answered. Again does nothing. Raises: Busy."""

    def waiting(self) -> AbstractContextManager[None]:
        """Let `$/cancelRequest`, and the end of the connection, cancel the current task."""

    def take_cancel(self) -> bool:
        """Return whether `$/cancelRequest` has cancelled the current task, which then goes on."""

    def reserve_turn(self) -> None:
        """Have the input of this batch typed before that of the lines behind it."""

    def release_turn(self) -> None:
        """Let the input behind this batch be typed. Again does nothing."""


P = TypeVar("P")
R = TypeVar("R")
C = TypeVar("C", bound=Caller | None)
Answer = bytes | None
"""One message, unframed; None where none is due (notifications)."""
Handler = Callable[[C, Any], Any]


class Handlers(Generic[C]):
    """The handlers of a dispatcher, by method; `C` is the type of the caller that each is given."""

    def __init__(self) -> None:
        self.by_method: dict[Method[Any, Any], Handler[C]] = {}

    def add(self, method: Method[P, R], handler: Callable[[C, P], R | Coroutine[Any, Any, R]]) -> None:
        """Answer `method` with `handler`.

        A handler that never waits is a plain function, and costs no task. One that waits is a
        coroutine function; one that seldom does may return a result or a coroutine.
        """
        self.by_method[method] = handler


class _Envelope(Struct, frozen=True):
    """A request before it is checked: only its syntax has been read."""

    jsonrpc: Any = UNSET
    method: Any = UNSET
    params: Raw = Raw(b"{}")
    id: Any = UNSET


_TOO_DEEP = e.ParseError(f"The JSON is nested deeper than {MAX_NESTING}")
_ID_TYPES = (str, int, float)
_envelopes = msgspec.json.Decoder(_Envelope | str | float | bool | list[Raw] | None)
_items = msgspec.json.Decoder(list[Raw])


class _OnlyMethod(Struct):
    method: str = ""


_methods = msgspec.json.Decoder(_OnlyMethod)


def _method_name(line: bytes | Raw) -> str:
    """Return the method of a request that may be none; "" where it has none. It is not nested too deep."""
    try:
        return _methods.decode(line).method
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


class Dispatcher(Generic[C]):
    """Answers lines.

    Args:
        handlers: One for every method of the table.
        table: The methods served.

    Raises:
        LookupError: A method has no handler, or a handler no method.
    """

    def __init__(self, handlers: Handlers[C], table: Mapping[str, Method[Any, Any]] = METHODS) -> None:
        differing = set(table.values()) ^ set(handlers.by_method)
        if differing:
            raise LookupError(f"methods and handlers differ: {sorted(method.name for method in differing)}")
        self._routes = {method.name: _route(method, handler) for method, handler in handlers.by_method.items()}
        self._inputs = frozenset(method.name for method in handlers.by_method if method.is_input)
        self._urgent = frozenset(method.name for method in handlers.by_method if method.is_urgent)
        self._waits = frozenset(method.name for method in handlers.by_method if method.can_wait)
        self._reserve = frozenset(method.name for method in handlers.by_method if method.in_reserve)

    def is_urgent(self, line: bytes) -> bool:
        """Return whether a line has nothing but requests that are not held back with the others."""
        if is_nested_too_deep(line):
            return False
        if line.lstrip()[:1] != b"[":
            return _method_name(line) in self._urgent
        try:
            items = _items.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return all(_method_name(item) in self._urgent for item in items)

    def wait_id(self, line: bytes) -> Any:
        """Return the id of a line that is one call that can wait; else UNSET."""
        if is_nested_too_deep(line) or _method_name(line) not in self._waits:
            return UNSET
        return _read_id(line)

    def dispatch(self, line: bytes, caller: C) -> Answer | Coroutine[Any, Any, Answer]:
        """Answer one line.

        Returns:
            The answer, or a coroutine that returns it where a handler has to wait. Nothing is raised,
            and the coroutine raises nothing but CancelledError.
        """
        # Before anything decodes the line, be it only to read its id. A short line is nested as deep as it has bytes.
        if len(line) > MAX_NESTING and is_nested_too_deep(line):
            return encode_error(None, _TOO_DEEP)
        # msgspec looks only into what it decodes, not into what it skips.
        if not (line.isascii() or _is_utf8(line)):
            return encode_error(_readable_id(line), e.ParseError("The line is not UTF-8"))
        if line[:1] == b"{" or line.lstrip()[:1] != b"[":
            return self._dispatch_one(line, caller)
        try:
            items = _items.decode(line)
        except msgspec.DecodeError as error:
            return encode_error(None, e.ParseError(str(error)))
        except Exception as exc:  # noqa: BLE001  # as in `_dispatch_one`
            return _unexpected(None, exc)
        if not 1 <= len(items) <= MAX_BATCH:
            return encode_error(None, e.InvalidRequest(f"A batch holds 1 to {MAX_BATCH} requests, not {len(items)}"))
        return self._dispatch_batch(items, caller)

    async def _dispatch_batch(self, items: list[Raw], caller: C) -> Answer:
        # Input in it comes before the input of later lines, also where a request before it in the batch waits.
        last_input = max((at for at, item in enumerate(items) if _method_name(item) in self._inputs), default=-1)
        if caller is None or last_input < 0:
            return await self._answer_batch(items, caller, last_input)
        caller.reserve_turn()
        try:
            return await self._answer_batch(items, caller, last_input)
        finally:
            caller.release_turn()

    async def _answer_batch(self, items: list[Raw], caller: C, last_input: int) -> Answer:
        answers: list[bytes] = []
        size = 0
        for at, item in enumerate(items):
            if caller is not None:
                caller.is_last_input = at == last_input
            if size > MAX_BATCH_ANSWER_BYTES:
                answer = _refuse(
                    bytes(item), e.Busy("The answers of this batch are too large together; ask again for this one")
                )
            else:
                one = self._dispatch_one(bytes(item), caller)
                answer = one if one is None or isinstance(one, bytes) else await one
            if at == last_input and caller is not None:
                caller.release_turn()
            if answer is not None:
                answers.append(answer)
                size += len(answer)
        return encode_batch(answers) if answers else None

    def _dispatch_one(self, line: bytes, caller: C) -> Answer | Coroutine[Any, Any, Answer]:
        try:
            envelope = _envelopes.decode(line)
        except msgspec.ValidationError:
            envelope = None  # JSON that no request can hold, such as a number out of range
        except msgspec.DecodeError as error:
            return encode_error(None, e.ParseError(str(error)))
        except Exception as exc:  # noqa: BLE001  # MemoryError, above all: this request fails, and no other
            return _unexpected(_readable_id(line), exc)
        if not isinstance(envelope, _Envelope) or not _is_request(envelope):
            return encode_error(_readable_id(line), e.InvalidRequest("This is not a JSON-RPC 2.0 request object"))
        call = _Call(envelope, caller)
        if caller is not None:
            caller.request_id = envelope.id
        if envelope.method not in self._routes:
            return call.error(e.MethodNotFound(f"No such method: {envelope.method[:128]!r}"))
        if caller is not None and caller.in_reserve and envelope.method not in self._reserve:
            served = ", ".join(sorted(name for name in self._reserve if not name.startswith("$")))
            return call.error(
                e.Busy(
                    "All connections of the daemon are used; this one is kept back for what can put that right",
                    hint=f"Close others: daemon.connections shows who has them. Until then it serves {served}.",
                )
            )
        dispatch_request(self._routes, call, Request(envelope.method, {"params": envelope.params}, None))
        return call.answer


class _Call(Generic[C]):
    """One request on its way through jsonrpcserver, and its answer."""

    __slots__ = ("answer", "caller", "id", "method")

    def __init__(self, envelope: _Envelope, caller: C) -> None:
        self.id = envelope.id
        self.method: str = envelope.method
        self.caller = caller
        self.answer: Answer | Coroutine[Any, Any, Answer] = None

    def result(self, value: Any) -> Answer:
        """Encode a result. One that cannot be encoded is an internal error, so that it is answered too."""
        try:
            answer = None if self.id is UNSET else _encode_result(self.id, value)
        except Exception as exc:  # noqa: BLE001  # as in `_route`
            return self.failure(exc)
        if self.caller is not None:
            self.caller.settle(succeeded=True)
        return answer

    def error(self, error: e.OrbitError) -> Answer:
        """Encode an error. One that cannot be encoded becomes an internal error without details."""
        if self.caller is not None:
            self.caller.settle(succeeded=False)
        if self.id is UNSET:
            return None
        try:
            return encode_error(self.id, error)
        except Exception as exc:  # noqa: BLE001  # as in `_route`
            self._log(exc, "")
            return encode_error(self.id, e.InternalError("Internal error"))

    def failure(self, exc: BaseException) -> Answer:
        """Encode what an exception of a handler means to the peer."""
        if isinstance(exc, e.OrbitError):
            return self.error(exc)
        if (missing := shortage(exc)) is not None:
            self._log(exc, "")
            what, remedy = missing
            return self.error(
                e.Busy(f"The daemon has no {what} left for this", hint=f"Try again; if it stays so, {remedy}.")
            )
        reference = uuid.uuid4().hex[:12]
        self._log(exc, reference)
        return self.error(e.InternalError(f"Internal error (reference {reference})", data={"reference": reference}))

    def _log(self, exc: BaseException, reference: str) -> None:
        name = type(exc).__name__
        event(log, logging.ERROR, "request failed", method=self.method, reference=reference, error=name, exc=exc)

    async def wait(self, outcome: Coroutine[Any, Any, Any]) -> Answer:
        """Return the answer of a handler that waits."""
        try:
            value = await outcome
        except asyncio.CancelledError as exc:
            if self.caller is not None and self.caller.take_cancel():
                return self.error(e.Cancelled("The call was cancelled"))
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the server stops, or the client of a call that can wait has gone
            return self.failure(exc)
        except Exception as exc:  # noqa: BLE001  # as in `_route`
            return self.failure(exc)
        return self.result(value)

    async def wait_without_place(self, outcome: Coroutine[Any, Any, Any]) -> Answer:
        """Return the answer of a handler that may wait for ever."""
        assert self.caller is not None
        with self.caller.waiting():
            return await self.wait(outcome)


_encode = msgspec.json.Encoder().encode


def _encode_result(request_id: Any, value: Any) -> bytes:
    with contextlib.suppress(UnicodeEncodeError):
        answer = _encode({"jsonrpc": "2.0", "result": value, "id": request_id})
        if b"\n" not in answer:
            return answer
    # Text of the operating system that has to be escaped, or raw JSON on several lines, which is refused.
    return encode_result(request_id, value)


_DONE = Success()
"""What a routed method returns to jsonrpcserver: the answer itself is in the call."""


def _route(method: Method[Any, Any], handler: Handler[Any]) -> Callable[..., Result]:
    """Return the function that jsonrpcserver calls for a method."""
    decoder = msgspec.json.Decoder(method.params)

    def route(call: _Call[Any], params: Raw) -> Result:
        # jsonrpcserver would swallow what this raises, so nothing may be raised: whatever happens here
        # becomes the answer.
        try:
            decoded = decoder.decode(params)
        except msgspec.ValidationError as exc:
            call.answer = call.error(e.InvalidParams(str(exc)))
        except msgspec.DecodeError as exc:
            call.answer = call.error(e.ParseError(str(exc)))
        except Exception as exc:  # noqa: BLE001  # a check of the params failed in a way that it should not
            call.answer = call.failure(exc)
        else:
            try:
                outcome = handler(call.caller, decoded)
            # Whatever a handler raises becomes an answer. Nobody cancels a plain function: where one raises
            # CancelledError, something that it asked has been cancelled.
            except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001
                call.answer = call.failure(exc)
            else:
                if not isinstance(outcome, CoroutineType):
                    call.answer = call.result(outcome)
                elif method.can_wait and call.caller is not None:
                    call.answer = _wait(call, outcome)
                else:
                    call.answer = call.wait(outcome)
        return _DONE

    # inspect.signature looks here first (PEP 362). It would work out the true signature for every request.
    route.__signature__ = _UNBOUND  # type: ignore[attr-defined]
    return route


def _wait(call: _Call[Any], outcome: CoroutineType[Any, Any, Any]) -> Answer | Coroutine[Any, Any, Answer]:
    """Return the answer of a handler that may wait for ever, or the refusal of one wait too many."""
    try:
        call.caller.begin_wait()
    except e.Busy as busy:
        outcome.close()
        return call.error(busy)
    return call.wait_without_place(outcome)


class _Unbound(inspect.Signature):
    """The signature of a function whose arguments msgspec checks: jsonrpcserver has none to bind to it."""

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """Accept anything."""
        return _NO_ARGUMENTS


_UNBOUND = _Unbound()
_NO_ARGUMENTS = inspect.BoundArguments(_UNBOUND, OrderedDict())


def _unexpected(request_id: Any, exc: Exception) -> bytes:
    event(log, logging.ERROR, "line not read", error=type(exc).__name__, exc=exc)
    return encode_error(request_id, e.InternalError("Internal error"))


def _is_utf8(line: bytes) -> bool:
    try:
        return line.decode() is not None
    except UnicodeDecodeError:
        return False


def _is_request(envelope: _Envelope) -> bool:
    """Return whether an envelope is a request object (specification, section 4)."""
    return (
        envelope.jsonrpc == "2.0"
        and isinstance(envelope.method, str)
        and memoryview(envelope.params)[0] in b"{["
        and (envelope.id is UNSET or _is_id(envelope.id))
    )


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, _ID_TYPES) and not isinstance(value, bool))


class _OnlyId(Struct):
    id: Any | UnsetType = UNSET


_ids = msgspec.json.Decoder(_OnlyId)


def _read_id(line: bytes) -> Any:
    """Return a request's id: UNSET where it has none, None where it cannot be read or is not valid."""
    try:
        found = _ids.decode(line).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found is UNSET or _is_id(found) else None


def _readable_id(line: bytes) -> Any:
    """Return the id of a request that is not valid otherwise, or None (section 5)."""
    found = _read_id(line)
    return None if found is UNSET else found


def _refuse(line: bytes, error: e.OrbitError) -> bytes | None:
    """Answer a request without running it; notifications are not answered."""
    found = _read_id(line)
    return None if found is UNSET else encode_error(found, error)


def refuse(line: bytes, error: e.OrbitError) -> bytes | None:
    """Answer a whole line with one error, without running it."""
    if is_nested_too_deep(line):
        return encode_error(None, _TOO_DEEP)
    return encode_error(None, error) if line.lstrip()[:1] == b"[" else _refuse(line, error)
