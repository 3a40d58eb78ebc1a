"""Orbit's wire contract as code: types, methods, errors, framing and documents.

Nothing in this package does I/O or keeps state between calls, so both sides of the
socket, tests and documentation tools can use it. It needs msgspec and the standard
library; `orbitd` and `orbitctl` both build on it and never on each other.
"""

PROTOCOL_VERSION = 1
"""Raised when a message changes in a way that an older peer would misread."""

VERSION = "0.1.0"
"""The release of Orbit that this package belongs to."""
