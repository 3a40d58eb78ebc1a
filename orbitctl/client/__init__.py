"""How orbitctl reaches a daemon, and what it asks.

    client     requests and answers over one stream, typed by the method table    paging   lists in pages
    transport  the Unix socket, and why it cannot be reached                       ssh      another machine
    paths      where socket, database, configuration and log are
    daemon     starting orbitd where none answers, and stopping it    process_watch   the end of a process

A command calls `client`; `client` writes to a stream that `transport` or `ssh` has opened. Nothing
here prints, and nothing here knows click.
"""
