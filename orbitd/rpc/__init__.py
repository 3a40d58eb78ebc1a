"""The socket: from bytes of a client to a handler and back.

    sockets      the listening socket          server      accepting, the peer's uid, limits, stop
    connection   one client: what is in flight, back-pressure
    dispatch     one line of JSON-RPC in, one line out
    handlers     which call answers which method

Bytes go connection, dispatch, handler; the answer goes back the same way. `dispatch` answers every
request that has an id; `server` and `connection` send only the errors of clients and lines that never
reach it. Notifications are written to a connection by `orbitd.sessions`.
"""
