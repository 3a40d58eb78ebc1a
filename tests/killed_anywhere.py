"""What a kill would leave after each line of some modules: the bytes of files, kept while a test runs its steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Generic, TypeVar

Known = TypeVar("Known")


class KilledAnywhere(Generic[Known]):
    """Runs steps, and keeps what is in the files after each line that the modules run.

    Args:
        files: Whose bytes are kept; None stands for one that is not there.
        modules: Whose lines are kills.
        known: Called at each kill; returns what the test must find again.

    Attributes:
        states: What differs from the kill before: the bytes of the files, and what is known.
    """

    def __init__(self, files: list[Path], modules: list[ModuleType], known: Callable[[], Known]) -> None:
        self._files = files
        self._code = {module.__file__ for module in modules}
        self._known = known
        self.states: list[tuple[list[bytes | None], Known]] = []

    def run(self, steps: Callable[[], None]) -> None:
        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_code.co_filename not in self._code:
                return None
            state = [file.read_bytes() if file.exists() else None for file in self._files], self._known()
            if not self.states or self.states[-1] != state:
                self.states.append(state)
            return trace

        sys.settrace(trace)
        try:
            steps()
        finally:
            sys.settrace(None)

    def restore(self, state: list[bytes | None], folder: Path) -> None:
        """Write the files as they were into another folder."""
        for file, content in zip(self._files, state, strict=True):
            (folder / file.name).unlink(missing_ok=True)
            if content is not None:
                (folder / file.name).write_bytes(content)
