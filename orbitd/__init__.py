"""The daemon: it owns the store, serves the socket and runs the terminals.

    cli, daemon    flags and settings; the daemon's life: lock, listen, open the store, serve, stop
    manager        SessionManager, the one API over the store, usable without the daemon
    rpc/           sockets, connections, requests and answers     store/   SQLite, cache, snapshots, backups
    live/          sessions whose programs run here               terminal/  the emulator and the journal
    keeper/        the small process that holds the terminals     supervision/  systemd and launchd
    maintenance    what is done at intervals    warnings   what lasts and a person should know
    lock, logs     one daemon a database; one line an event

A request goes from `rpc` through a handler to `live` or `manager`; from there on to `store`,
`terminal` and `keeper`. Nothing here imports `orbitctl`.
"""
