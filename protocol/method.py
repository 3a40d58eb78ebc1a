"""What a method of the contract is, and a notification; the tables are in `protocol.methods`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from protocol.errors import OrbitError

P = TypeVar("P", contravariant=True)
R = TypeVar("R", covariant=True)


@dataclass(frozen=True)
class Method(Generic[P, R]):
    """One method of the contract.

    Args:
        name: What stands in a request's `method`.
        params: The Struct that its params are decoded into.
        result: The type of its result (a Struct, or a union with None).
        summary: One sentence for people.
        errors: What it may answer beside the errors that every method may.
    """

    name: str
    params: type[Any]
    result: Any
    summary: str
    errors: tuple[type[OrbitError], ...] = ()


@dataclass(frozen=True)
class Notification(Generic[P]):
    """What the daemon sends without being asked.

    Args:
        name: What stands in the message's `method`.
        params: The Struct of its params.
        summary: One sentence for people.
    """

    name: str
    params: type[Any]
    summary: str
