"""What the daemon and the command line both need of the operating system, once.

    files     folders that only the user can reach; fsync
    sockets   how long a socket's path may be; whose process is at the other end
    python    how a Python process of ours is started, and kept apart from the user's project

Standard library only, with as few imports as possible: the keeper, which has no
site-packages, uses `sockets` too. Data goes one way: `orbitd` and `orbitctl` call these
functions, and nothing here knows of either or of the protocol.
"""
