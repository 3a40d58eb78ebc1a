"""The socket: from bytes of a client to a handler and back.

    sockets      the listening socket          server      accepting, limits, stop
    connection   one client: what is in flight, back-pressure
    dispatch     one line of JSON-RPC in, one line out
    handlers     which call answers which method

Bytes go connection, dispatch, handler; the answer goes back the same way. Only `dispatch`
answers, and it answers every request that has an id.
"""
