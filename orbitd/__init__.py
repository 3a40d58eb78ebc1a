"""The daemon: it owns the store, serves the socket and runs the terminals.

    __main__, cli  the program and its flags      daemon    its life: lock, listen, open the store, serve, stop
    manager        SessionManager, the one API over the store, usable without the daemon
    rpc/           sockets, connections, requests and answers     store/   SQLite, cache, snapshots, backups
    live/          sessions whose programs run here               terminal/  the emulator and the journal
    keeper/        the small process that holds the terminals     supervision/  systemd and launchd
    maintenance    recurring tasks                warnings  problems that last, as sentences for a person
    lock, logs     one daemon a database; one line an event
    background_tasks  tasks that nothing awaits, held until they are done

A request goes from `rpc` through a handler to `live` or `manager`, and on to `store`, `terminal` and
`keeper`. A program's output goes from `live` through the journal and the emulator of `terminal` to the
connections of `rpc`. Nothing here imports `orbitctl`.
"""
