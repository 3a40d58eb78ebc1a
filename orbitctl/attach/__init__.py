"""A session on the user's terminal: keys go to the daemon, output comes back.

    run_attach   what the commands call: start a program, attach to it, print how it ended
    plain        the attach that people type most, without click
    attachment   the loop (one thread, select(2)), its options and its result
    terminal     raw mode, non-blocking reads and writes, signals
    detach_key   the detach key among what is typed       keys   names and encodings of keys
    connection   messages to and from the daemon, without blocking; the queue of input
    reconnect    reaching the daemon again after it has gone
    output_filter   what the output may not do to the window
    painter, window   drawing pictures without losing lines
    mark         which lines a window has, and which sessions it has shown
    line_count   how many lines have scrolled off
    questions, cursor_question   what the terminal is asked
    text_lines   output as lines of text, for `logs -f`

A key passes terminal, attachment, detach_key, connection; output passes connection, attachment,
terminal. While attached, nothing blocks but the select in attachment; a terminal that is restored is
waited for, for two seconds.
"""
