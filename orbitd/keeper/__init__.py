"""The keeper: a tiny process that holds the PTY masters of live sessions while daemons stop and start.

It also holds the landing buffer: what a daemon has read from a master and not yet recorded when it was killed.

    __main__, daemonize   the keeper process: fork and setsid, signals, standard streams
    place                 its socket and the note beside it, and how a keeper without a socket is found; on both sides
    server                its poll loop: connections, requests, SIGCHLD
    program               one program: openpty, fork, execve, and what is recorded until it is forgotten
    frames, messages      the wire format, used by both sides; frames by screens processes too
    client, channel       orbitd's side: one method a request; frames and descriptors on the event loop

A request goes client -> channel -> server -> program; a descriptor of the program's master comes back with
the answer, and orbitd does all reading and writing. Exits come back unasked. What runs inside the keeper imports
small parts of the standard library and of `orbit_os` only: it lives for weeks and its memory counts.
"""
