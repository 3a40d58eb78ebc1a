"""JSON-RPC 2.0 messages as the client writes and reads them (specification, sections 4 to 6).

The daemon reads requests in `orbitd.rpc.dispatch`; both sides write with these encoders.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from orbit_protocol.errors import OrbitError
from orbit_protocol.framing import NewlineInMessage, frame
from orbit_protocol.json_text import check_nesting, one_line
from orbit_protocol.text import encodable_message

RequestId = int | str | float | None


class Request(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A call; without an id, a notification."""

    jsonrpc: str = "2.0"
    id: RequestId | UnsetType = UNSET
    method: str
    params: Any = UNSET


class ErrorObject(Struct, frozen=True, kw_only=True):
    """The `error` member of a response (JSON-RPC 2.0, 5.1)."""

    code: int
    message: str
    data: dict[str, Any] | None = None


class Response(Struct, frozen=True, kw_only=True):
    """What came back; `result` is still encoded. A message with `method` is a notification."""

    jsonrpc: str
    id: RequestId | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: ErrorObject | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_responses = msgspec.json.Decoder(Response)


def encode_request(method: str, params: Any, request_id: RequestId | UnsetType = UNSET) -> bytes:
    """Return a request as one line; without an id it is a notification.

    Raises:
        ValueError: Raw JSON among the params is not JSON.
        TypeError: The params cannot be encoded.
    """
    if params is not UNSET and not isinstance(params, Struct):
        # Raw JSON is copied as it is: one that ends the params early would set members of the request. The Structs of
        # the method table check theirs when they are made.
        params = Raw(one_line(_encoder.encode(params)))
    return frame(_encoder.encode(Request(method=method, params=params, id=request_id)))


def encode_result(request_id: Any, result: Any) -> bytes:
    """Return a successful response, unframed. Raises: an exception of any kind if it cannot be encoded."""
    return encode_message({"jsonrpc": "2.0", "result": result, "id": request_id})


def encode_error(request_id: Any, error: OrbitError) -> bytes:
    """Return a failed response, unframed. Raises: an exception of any kind if it cannot be encoded."""
    body = {"code": error.code, "message": error.message, "data": error.data()}
    return encode_message({"jsonrpc": "2.0", "error": body, "id": request_id})


def encode_message(message: Any) -> bytes:
    """Return a message of the daemon, unframed.

    Whatever in it quotes the operating system can be encoded: a path in an error's message that is not UTF-8
    must not cost the client its answer.
    """
    try:
        encoded = _encoder.encode(message)
    except UnicodeEncodeError:
        encoded = _encoder.encode(encodable_message(message))
    if b"\n" in encoded:
        raise NewlineInMessage
    return encoded


def encode_batch(responses: list[bytes]) -> bytes:
    """Return encoded responses as one batch answer, unframed (section 6)."""
    return b"[" + b",".join(responses) + b"]"


def decode_response(line: bytes) -> Response:
    """Read one response or notification.

    Raises:
        msgspec.DecodeError: The line is not one.
    """
    check_nesting(line)
    return _responses.decode(line)
