"""The durable store: SQLite, a cache of what is alive, snapshots as reverse deltas.

Rules of this room. One thread writes (`writer`), a pool reads (`readers`), and the event
loop touches no disk. What decides (does it exist, is the name free, may the status change)
decides in the writer's thread, inside the transaction; the cache only answers reads. The
cache changes on the event loop, after the commit, in commit order. Everything outside this
package goes through `orbitd.manager.SessionManager`.
"""
