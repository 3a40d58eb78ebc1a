"""What the daemon and the command line both need of the operating system.

    files       folders and files that only the user can reach; modes, locks, fsync
    sockets     the longest path of a Unix socket; the uid of the peer
    places      where files are by default, and whether HOME can be used
    processes   a process's start time: with its pid it stands for that process alone
    lock_note   who holds a database's lock, and where it serves
    python      isolate our interpreters from the user's project; name a process
    shell       quote words of commands that a person is to type
    shells      which commands are shells for somebody to type into
    shell_integration   what has shells mark their prompts and commands

Standard library only, with as few imports as possible: the keeper, which has no
site-packages, uses `sockets` too. Data goes one way: `orbitd` and `orbitctl` call these
functions, and nothing here knows of either or of the protocol.
"""
