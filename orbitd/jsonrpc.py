"""jsonrpcserver, without the parts of it that Orbit does not use.

Importing it also makes a default validator, which needs the whole of jsonschema, and a
demonstration server over HTTP. Orbit gives a validator of its own and serves a Unix
socket. While jsonrpcserver is imported, stand-ins take the place of both: measured, 5 MB
of resident memory and 100 ms of every start. What somebody imported before stays as it is,
and can be imported as ever afterwards.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Iterator
from types import ModuleType
from typing import Any


class _NoValidator:
    """Stands in for jsonschema's validators: takes every schema, and validates nothing."""

    def __init__(self, schema: Any) -> None:
        pass

    @staticmethod
    def check_schema(schema: Any) -> None:
        """Take any schema."""

    def validate(self, instance: Any) -> None:
        """Refuse to be used: a validator is always given to `async_dispatch`."""
        raise NotImplementedError("jsonrpcserver's default validator is not loaded")


_STAND_INS: dict[str, dict[str, Any]] = {
    "jsonschema.validators": {"validator_for": lambda schema: _NoValidator},
    "jsonrpcserver.server": {"serve": None},
}


@contextlib.contextmanager
def _stood_in() -> Iterator[None]:
    """Put the stand-ins where `import` looks first, and take them away again."""
    placed = {name: attributes for name, attributes in _STAND_INS.items() if name not in sys.modules}
    for name, attributes in placed.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]


with _stood_in():
    from jsonrpcserver import Error, Result, Success, async_dispatch, async_dispatcher


class _InTurn:
    """Stands in for asyncio where jsonrpcserver runs the requests of a batch all at once.

    Batches are split before they come here, so that it has one request at a time: awaiting
    that one in the caller's task spares a task and two turns of the loop for every request.
    """

    @staticmethod
    async def gather(*requests: Awaitable[Any]) -> list[Any]:
        """Run the requests one after the other."""
        return [await request for request in requests]


vars(async_dispatcher)["asyncio"] = _InTurn

__all__ = ["Error", "Result", "Success", "async_dispatch"]
