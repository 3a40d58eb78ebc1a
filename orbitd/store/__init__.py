"""The durable store: SQLite, with what is in use cached in memory. Its API is `orbitd.manager.SessionManager`.

    sessions, snapshots, workspaces, event_methods, maintenance   the SessionManager's methods, one file an entity
    documents                  likewise: workspaces as documents, and documents as workspaces
    events, event_recorder     what a change records of itself, and cursors; publishing, what programs say, retention
    validation, pages          checks of arguments; pages of lists and their cursors
    store                      what the methods share: the writer, the readers, the cache, a pool of threads
    writer                     the one thread that writes: group commit, a savepoint for each call
    checkpointer               checkpoints of the log, beside the writer
    readers                    the pool of connections that only read
    cache                      sessions that are not terminated, and workspaces
    damage                     rows that cannot be read: found, left out and named
    rows, screen_codec, delta_chain   Structs as rows; screens as zstd frames; snapshots as reverse deltas
    database, migrations       opening the file, its settings and its schema
    progress                   how far long work is, and whether its caller still wants it
    errors, files, file_watch  sqlite3's exceptions as Orbit's; names of files; a database that was moved away
    backup                     copies, restores, damaged databases

A change runs in the writer's thread, where it also decides (does it exist, is the name free, may the
status change); after the commit it is applied to the cache on the event loop, in commit order. A read
is answered from the cache, or by a reader. On the event loop nothing is read or written but for stat(2), which finds a
database that was moved away.
"""
