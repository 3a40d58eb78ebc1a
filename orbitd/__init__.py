"""The daemon: it owns the store, serves the socket and runs the terminals.

    __main__, cli  the program and its flags      daemon    its life: lock, listen, open the store, serve, stop
    manager        SessionManager, the one API over the store, usable without the daemon
    rpc/           sockets, connections, requests and answers     store/   SQLite, cache, snapshots, backups
    sessions/      programs, journals, clients                    screens/ pictures, in processes of their own
    keeper/        the small process that holds the terminals     supervision/  systemd and launchd
    maintenance    recurring tasks                warnings  problems that last, as sentences for a person
    lock, logs     one daemon a database; one line an event       log_writer   writes those, in a thread
    descriptors    who may take the last ones     installation    whether it was replaced since the start
    background_tasks  tasks that nothing awaits, held until they are done

A request goes from `rpc` through a handler to `sessions` or `manager`, and on to `store`, `screens` and
`keeper`. A program's output goes from its terminal through the journal to the connections of `rpc`, all of it in
`sessions`; `screens` follows the journal. Nothing here imports `orbitctl`.
"""
