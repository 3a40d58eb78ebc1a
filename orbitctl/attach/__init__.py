"""A session on the user's terminal: keys go to the daemon, output comes back.

    run, run_attach   what the commands call: start a program, attach to it, say how it ended
    attachment        the loop                    options      what an attach is asked for, how it ends
    terminal          the user's terminal         connection   messages to and from the daemon, non-blocking
    detach_key, keys  finding the detach key      input_queue  what was typed, until it is sent
    reconnect         waiting for a daemon that restarts       environment  what goes with a start

One thread and one select(2): keys take the way terminal, detach_key, input_queue, connection; output
comes from connection and goes to terminal. Nothing blocks but that select.
"""
