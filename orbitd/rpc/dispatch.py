"""From one line of JSON to one line of JSON: JSON-RPC 2.0 over jsonrpcserver and msgspec.

Only this module answers. Handlers return a result or raise an `OrbitError`; anything else
that they raise is logged under a reference, and the peer gets the reference alone.

jsonrpcserver routes one request at a time, by the one function of it that does that. What it
leaves open is done here: a batch is split first, so that one bad item does not reject the
rest (specification, section 6) and its items run in order; `params` stay encoded until the
method is known, and are then decoded straight into its Struct.
"""

from __future__ import annotations

import inspect
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from types import CoroutineType
from typing import Any, Generic, TypeVar, cast

import msgspec
from jsonrpcserver import Error, Result, Success
from jsonrpcserver.dispatcher import dispatch_request, to_response
from jsonrpcserver.request import Request
from jsonrpcserver.response import to_serializable_one
from msgspec import UNSET, Raw, Struct, UnsetType

from orbit_protocol import errors as e
from orbit_protocol.jsonrpc import encode_batch, encode_error, encode_message, encode_result
from orbit_protocol.methods import METHODS, Method
from orbitd.logs import event

MAX_BATCH = 100
MAX_BATCH_ANSWER_BYTES = 32 * 1024 * 1024

log = logging.getLogger("orbitd.rpc.dispatch")
logging.getLogger("jsonrpcserver").setLevel(logging.CRITICAL + 1)  # it would log params

P = TypeVar("P")
R = TypeVar("R")
C = TypeVar("C")
Answer = bytes | None
"""One message, unframed; None where none is due (notifications)."""
Handler = Callable[[C, Any], Any]


class Handlers(Generic[C]):
    """The daemon's answers, by method; `C` is what a handler gets to know its caller by."""

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


_ID_TYPES = (str, int, float)
_envelopes = msgspec.json.Decoder(_Envelope | str | float | bool | list[Raw] | None)
_items = msgspec.json.Decoder(list[Raw])


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

    def dispatch(self, line: bytes, caller: C) -> Answer | Coroutine[Any, Any, Answer]:
        """Answer one line.

        Returns:
            The answer, or a coroutine that returns it where a handler has to wait. Nothing is raised,
            and the coroutine raises nothing but CancelledError.
        """
        # msgspec looks only into what it decodes, not into what it skips.
        if not _is_utf8(line):
            return encode_error(_readable_id(line), e.ParseError("The line is not UTF-8"))
        if line.lstrip()[:1] != b"[":
            return self._dispatch_one(line, caller)
        try:
            items = _items.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            return encode_error(None, _parse_error(error))
        if not 1 <= len(items) <= MAX_BATCH:
            return encode_error(None, e.InvalidRequest(f"A batch holds 1 to {MAX_BATCH} requests, not {len(items)}"))
        return self._dispatch_batch(items, caller)

    async def _dispatch_batch(self, items: list[Raw], caller: C) -> Answer:
        answers: list[bytes] = []
        size = 0
        for item in items:
            if size > MAX_BATCH_ANSWER_BYTES:
                answer = _refuse(
                    bytes(item), e.Busy("The answers of this batch are too large together; ask again for this one")
                )
            else:
                one = self._dispatch_one(bytes(item), caller)
                answer = one if one is None or isinstance(one, bytes) else await one
            if answer is not None:
                answers.append(answer)
                size += len(answer)
        return encode_batch(answers) if answers else None

    def _dispatch_one(self, line: bytes, caller: C) -> Answer | Coroutine[Any, Any, Answer]:
        try:
            envelope = _envelopes.decode(line)
        except msgspec.ValidationError:
            envelope = None  # JSON that no request can hold, such as a number out of range
        except (msgspec.DecodeError, RecursionError) as error:
            return encode_error(None, _parse_error(error))
        if not isinstance(envelope, _Envelope) or not _is_request(envelope):
            return encode_error(_readable_id(line), e.InvalidRequest("This is not a JSON-RPC 2.0 request object"))
        # For the library a notification is a request like others; its answer is dropped here.
        request = Request(envelope.method, {"params": envelope.params}, None if envelope.id is UNSET else envelope.id)
        routed = to_response(*dispatch_request(self._routes, caller, request))
        response = cast("dict[str, Any]", to_serializable_one(routed))
        result = response.get("result")
        if isinstance(result, CoroutineType):
            return _wait(result, envelope)
        return _answer(envelope, response)


def _route(method: Method[Any, Any], handler: Handler[Any]) -> Callable[..., Result]:
    """Return the function that jsonrpcserver calls for a method. Its result may be a coroutine."""
    decoder = msgspec.json.Decoder(method.params)

    def route(caller: Any, params: Raw) -> Result:
        error: e.OrbitError
        try:
            decoded = decoder.decode(params)
        except msgspec.ValidationError as exc:
            error = e.InvalidParams(str(exc))
        except (msgspec.DecodeError, RecursionError) as exc:
            error = _parse_error(exc)
        else:
            try:
                return Success(handler(caller, decoded))
            except Exception as exc:  # noqa: BLE001  # whatever a handler raises becomes an answer
                error = _meaning(exc, method.name)
        return Error(error.code, error.message, error.data())

    route.__signature__ = _UNBOUND  # type: ignore[attr-defined]  # where inspect.signature looks first (PEP 362)
    return route


class _Unbound(inspect.Signature):
    """The signature of a function whose arguments msgspec checks: jsonrpcserver has none to bind to it.

    It would work out and bind the true one for every request: measured, 10 of 28 us.
    """

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """Accept anything."""
        return inspect.BoundArguments(self, OrderedDict())


_UNBOUND = _Unbound()


async def _wait(result: Coroutine[Any, Any, Any], envelope: _Envelope) -> Answer:
    """Return the answer of a handler that waits."""
    try:
        return _answer(envelope, {"result": await result})
    except Exception as exc:  # noqa: BLE001  # as in `_route`
        return None if envelope.id is UNSET else encode_error(envelope.id, _meaning(exc, envelope.method))


def _answer(envelope: _Envelope, response: dict[str, Any]) -> Answer:
    """Encode a response; a result that cannot be encoded is an internal error, and is answered too."""
    if envelope.id is UNSET:
        return None
    if "error" not in response:
        try:
            return encode_result(envelope.id, response["result"])
        except Exception as exc:  # noqa: BLE001  # as in `_route`
            return encode_error(envelope.id, _meaning(exc, envelope.method))
    if response["error"]["code"] == e.MethodNotFound.code:
        return encode_error(envelope.id, e.MethodNotFound(f"No such method: {envelope.method[:128]!r}"))
    return encode_message(response)


def _meaning(exc: Exception, method: str) -> e.OrbitError:
    """Return the error that an exception of a handler, or of encoding its result, is answered with."""
    if isinstance(exc, e.OrbitError):
        return exc
    reference = uuid.uuid4().hex[:12]
    event(log, logging.ERROR, "request failed", method=method, reference=reference, error=type(exc).__name__, exc=exc)
    return e.InternalError(f"Internal error (reference {reference})", data={"reference": reference})


def _parse_error(error: BaseException) -> e.ParseError:
    if isinstance(error, RecursionError):
        return e.ParseError("The JSON is nested too deeply")
    return e.ParseError(str(error))


def _is_utf8(line: bytes) -> bool:
    try:
        return line.isascii() or line.decode() is not None
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


def _readable_id(line: bytes) -> Any:
    """Return the id of a request that is not valid otherwise, or None (section 5)."""
    try:
        found = msgspec.json.decode(line, type=_OnlyId).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if found is not UNSET and _is_id(found) else None


def _refuse(line: bytes, error: e.OrbitError) -> bytes | None:
    """Answer a request without running it; notifications are not answered."""
    try:
        found = msgspec.json.decode(line, type=_OnlyId).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return None if found is UNSET else encode_error(found if _is_id(found) else None, error)


def refuse(line: bytes, error: e.OrbitError) -> bytes | None:
    """Answer a whole line with one error, without running it."""
    return encode_error(None, error) if line.lstrip()[:1] == b"[" else _refuse(line, error)
