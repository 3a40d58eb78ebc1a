"""Orbit's command line: a blocking client of the daemon's socket and the commands over it.

A command's process lives for milliseconds, so what a module imports counts: the client is
plain sockets, a group's module is imported when the group is called, and rich only when a
table is drawn on a terminal. Nothing here imports `orbitd`.
"""
