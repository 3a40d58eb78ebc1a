"""What both sides agree on, as code: the wire, the settings. Nothing in this package does I/O.

    types, params, results, notifications   what travels, as frozen Structs
    methods      the one table of methods: name, params, result, errors
    errors       every error, with code, kind and hint
    event_kinds  every kind of event, and how clients name several
    text         bytes of the operating system as text and back
    framing      bytes to lines and back          jsonrpc   JSON-RPC 2.0 messages
    json_text    JSON before it is decoded: its nesting, and raw JSON on one line
    plain_words, visible    validation errors as sentences, and text that a terminal only shows
    openrpc      the OpenRPC document of the table, with what each field means (descriptions)
    event_data   what an event has in its data, by its kind
    settings, paths    the configuration file, and what may be written as a path
    terminal_reset     escape sequences that reset and restore a user's terminal
    terminal_input     what a user types, beside what the terminal sends by itself
    environment        variables of a client that are not for a program, and the limits that it may send

Both programs, tests and the generators of documents read it; it knows of none of them.
It needs msgspec and the standard library.
"""

PROTOCOL_VERSION = 1
"""Raised when a message changes in a way that an older peer would misread."""

VERSION = "0.1.0"
"""The release of Orbit that this package belongs to."""

MAX_COLUMNS_OR_ROWS = 4096
"""Columns of a terminal, and rows. It stands here for the template of screens processes, which imports no `types`."""

MAX_SCREEN_CELLS = 1_000_000
"""Columns times rows of a terminal."""
