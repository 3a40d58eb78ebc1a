"""From one line of JSON to one line of JSON: JSON-RPC 2.0 over jsonrpcserver and msgspec.

Only this module answers. Handlers return a result or raise an `OrbitError`; anything else
that they raise is logged under a reference, and the peer is told the reference alone.

jsonrpcserver routes one request at a time. What it leaves open is done here: a batch is
split first, so that one bad item does not reject the rest (specification, section 6) and
so that its items run in order; `params` stay encoded until the method is known, and are
then decoded straight into its Struct.
"""

from __future__ import annotations

import inspect
import logging
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from orbitd.jsonrpc import Error, Result, Success, async_dispatch
from orbitd.logs import event
from protocol import errors as e
from protocol.envelope import encode_batch, encode_error
from protocol.method import Method
from protocol.methods import METHODS

MAX_BATCH = 100
MAX_BATCH_ANSWER_BYTES = 32 * 1024 * 1024

log = logging.getLogger("orbitd.dispatch")
logging.getLogger("jsonrpcserver").setLevel(logging.CRITICAL + 1)  # it would log params

P = TypeVar("P")
R = TypeVar("R")
C = TypeVar("C")
Handler = Callable[[C, Any], Awaitable[Any]]


class Handlers(Generic[C]):
    """The daemon's answers, by method; `C` is what a handler is told of its caller."""

    def __init__(self) -> None:
        self.by_method: dict[Method[Any, Any], Handler[C]] = {}

    def add(self, method: Method[P, R], handler: Callable[[C, P], Awaitable[R]]) -> None:
        """Answer `method` with `handler`."""
        self.by_method[method] = handler


class _Envelope(Struct, frozen=True):
    """A request before it is checked: only its syntax has been read."""

    jsonrpc: Any = UNSET
    method: Any = UNSET
    params: Raw = Raw(b"{}")
    id: Any = UNSET


_ID_TYPES = (str, int, float)
_encoder = msgspec.json.Encoder()
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
        self._calls = {method.name: _call(method, handler) for method, handler in handlers.by_method.items()}

    async def dispatch(self, line: bytes, caller: C) -> bytes | None:
        """Answer one line.

        Returns:
            The answer, unframed; None where none is due (notifications).
        """
        if not _is_utf8(line):
            return encode_error(_readable_id(line), e.ParseError("The line is not UTF-8"))
        if line.lstrip()[:1] != b"[":
            return await self._dispatch_one(line, caller)
        try:
            items = _items.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            return encode_error(None, _parse_error(error))
        if not 1 <= len(items) <= MAX_BATCH:
            return encode_error(None, e.InvalidRequest(f"A batch holds 1 to {MAX_BATCH} requests, not {len(items)}"))
        return await self._dispatch_batch(items, caller)

    async def _dispatch_batch(self, items: list[Raw], caller: C) -> bytes | None:
        answers: list[bytes] = []
        size = 0
        for item in items:
            if size > MAX_BATCH_ANSWER_BYTES:
                answer = _refuse(
                    bytes(item), e.Busy("The answers of this batch are too large together; ask again for this one")
                )
            else:
                answer = await self._dispatch_one(bytes(item), caller)
            if answer is not None:
                answers.append(answer)
                size += len(answer)
        return encode_batch(answers) if answers else None

    async def _dispatch_one(self, line: bytes, caller: C) -> bytes | None:
        answer: Any = await async_dispatch(
            line,
            self._calls,
            context=caller,
            deserializer=_deserialize,
            validator=_validate,
            serializer=partial(_serialize, line),  # type: ignore[arg-type]  # its bytes are handed on as they are
        )
        return answer or None  # an empty string stands for no answer


def _is_utf8(line: bytes) -> bool:
    """Tell whether a line is text: msgspec looks only into what it decodes, not into what it skips."""
    try:
        return line.isascii() or line.decode() is not None
    except UnicodeDecodeError:
        return False


def _deserialize(line: Any) -> Any:
    """Read the envelope. What it raises, jsonrpcserver turns into a parse error."""
    try:
        envelope = _envelopes.decode(line)
    except msgspec.ValidationError:
        return None  # JSON that no request can hold, such as a number out of range
    if not isinstance(envelope, _Envelope):
        return None
    request = {"jsonrpc": envelope.jsonrpc, "method": envelope.method, "params": {"raw": envelope.params}}
    if envelope.id is not UNSET:
        request["id"] = envelope.id
    return request


def _validate(request: Any) -> Any:
    """Check a request object (section 4).

    Raises:
        ValueError: It is not one.
    """
    if request is None or request["jsonrpc"] != "2.0" or not isinstance(request["method"], str):
        raise ValueError("not a request object")
    if memoryview(request["params"]["raw"])[0] not in b"{[":
        raise ValueError("params are not structured")
    if not _is_id(request.get("id")):
        raise ValueError("not an id")
    return request


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, _ID_TYPES) and not isinstance(value, bool))


def _call(method: Method[Any, Any], handler: Handler[Any]) -> Callable[..., Awaitable[Result]]:
    """Return the function that jsonrpcserver calls for a method."""
    decoder = msgspec.json.Decoder(method.params)

    async def call(caller: Any, raw: Raw) -> Result:
        try:
            return Success(await handler(caller, decoder.decode(raw)))
        except e.OrbitError as error:
            return _error(error)
        except msgspec.ValidationError as error:
            return _error(e.InvalidParams(str(error)))
        except (msgspec.DecodeError, RecursionError) as error:
            return _error(_parse_error(error))
        except Exception as error:  # noqa: BLE001  # the border: whatever a handler raises becomes an answer
            return _error(_internal(method.name, error))

    call.__signature__ = _UNBOUND  # type: ignore[attr-defined]  # where inspect.signature looks first (PEP 362)
    return call


class _Unbound(inspect.Signature):
    """The signature of a call whose arguments msgspec checks: jsonrpcserver has none to bind to it.

    It would work out and bind the true one anew for every request: measured, 10 of 28 us.
    """

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """Take anything."""
        return inspect.BoundArguments(self, OrderedDict())


_UNBOUND = _Unbound()


def _error(error: e.OrbitError) -> Result:
    return Error(error.code, error.message, error.data())


def _internal(method: str, error: BaseException) -> e.InternalError:
    reference = uuid.uuid4().hex[:12]
    event(
        log, logging.ERROR, "request failed", method=method, reference=reference, error=type(error).__name__, exc=error
    )
    return e.InternalError(f"Internal error (reference {reference})", data={"reference": reference})


def _parse_error(error: BaseException) -> e.ParseError:
    if isinstance(error, RecursionError):
        return e.ParseError("The JSON is nested too deeply")
    return e.ParseError(str(error))


def _serialize(line: bytes, response: Any) -> bytes:
    """Write jsonrpcserver's response, with our data for the errors that it made itself."""
    if "result" in response:
        return _encoder.encode(response)
    code, data = response["error"]["code"], response["error"].get("data")
    if isinstance(data, dict):
        return _encoder.encode(response)
    if code == e.ParseError.code:
        return encode_error(None, e.ParseError(str(data)))
    if code == e.MethodNotFound.code:
        return encode_error(response["id"], e.MethodNotFound(f"No such method: {str(data)[:128]!r}"))
    if code == e.InvalidRequest.code:
        return encode_error(_readable_id(line), e.InvalidRequest("This is not a JSON-RPC 2.0 request object"))
    return encode_error(response["id"], _internal("?", RuntimeError(response["error"]["message"])))


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
