"""Pictures: what a session's output looks like, drawn in processes of their own.

    client                    orbitd's side: which picture is where, and what becomes of it when its process fails
    messages, note            what both sides say to each other; what a process works on, in shared memory
    template                  the process that has loaded the library, and is forked
    process, follower         a screens process: its loop; one journal's records, in order
    divider                   the line between two programs on one screen, and the reset that it needs
    questions                 what programs ask their terminal and the library leaves unanswered
    emulator                  one emulated terminal; the only public way to libghostty-vt
    _ghostty*                 that library: loading and C interface, terminals and copies, reading rows
    model                     screens, rows, styles as plain values
    repaint, vt_writer        those values as the bytes that draw them on a client's terminal
    frame                     a part of them, for a window of another size
    render                    the same as text, HTML and SVG
    svg, boxes                rows as a picture; box-drawing characters as paths
    said                      notifications and finished commands, found in the output
    text_search               texts that calls wait for, found in the output and on the screen
    text_taker                the text that a session shows, each line once, for its history

orbitd imports `client`, `messages`, `note` and `model`, and never the library: whatever a program prints, and whatever
the library does with it, happens in another process.
"""
