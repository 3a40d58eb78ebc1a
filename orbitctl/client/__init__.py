"""The connection to a daemon: the streams that reach it, and the client that calls its methods.

    client         requests and answers over one stream, typed by the method table; lists page by page
    transport      the stream over the Unix socket, and why it cannot be reached
    finding        the daemon that listens elsewhere, by the note in the database's lock
    local          this user's own daemon, as an attach asks for it
    light, light_json   plain calls without click and msgspec; whatever is unusual is left to `client`
    ssh            the stream to the daemon of another machine
    paths          where socket, database, configuration and log are
    daemon         starting orbitd where none runs, and stopping it
    process_watch  waiting for a process to end

A command calls `client`; `client` writes to a stream that `transport` or `ssh` has opened. Nothing
here knows click, and only `daemon` prints, through the `Output` that it is given.
"""
