"""jsonrpcserver without jsonschema: shown in an interpreter of its own, since imports last."""

from __future__ import annotations

import subprocess
import sys


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_dispatch_leaves_jsonschema_and_the_http_server_alone() -> None:
    """Importing dispatch imports neither, and leaves no stand-in behind."""
    loaded = "[n for n in sys.modules if n.split('.')[0] in ('jsonschema', 'http') or n == 'jsonrpcserver.server']"
    assert python(f"import sys, orbitd.dispatch; print({loaded})") == "[]"


def test_jsonschema_can_be_used_afterwards() -> None:
    """Whoever imports jsonschema later gets the true one."""
    code = "import orbitd.dispatch; from jsonschema.validators import validator_for as v; print(v({}).__name__)"
    assert python(code).startswith("Draft")


def test_jsonschema_that_is_there_already_is_not_touched() -> None:
    """Whoever imported jsonschema before keeps it."""
    code = "import jsonschema.validators as a, orbitd.dispatch, sys; print(sys.modules['jsonschema.validators'] is a)"
    assert python(code) == "True"
