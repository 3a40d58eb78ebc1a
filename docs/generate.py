"""Write the generated documents, or check that they are current.

python docs/generate.py            write them
python docs/generate.py --check    exit with 1, and name each that is stale
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from commands_page import commands_markdown
from completion_table import table_source
from man_page import man_page
from protocol_page import protocol_markdown
from typescript_types import typescript_declarations

ROOT = Path(__file__).parents[1]
DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/protocol.md": protocol_markdown,
    "docs/commands.md": commands_markdown,
    "docs/orbitctl.1": man_page,
    "orbitctl/completion/table.py": table_source,
    "examples/javascript/orbit.d.ts": typescript_declarations,
}


def main(arguments: list[str]) -> int:
    """Write or check every document; return the exit status."""
    stale = [name for name, write in DOCUMENTS.items() if _read(ROOT / name) != write()]
    if "--check" in arguments:
        for name in stale:
            print(f"{name} is stale; run: python docs/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(DOCUMENTS[name]())
        print(f"wrote {name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
