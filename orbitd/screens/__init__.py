"""A session's terminal: what is on its screen, how that is saved, and how it is drawn elsewhere.

    emulator                  one emulated terminal; the only public way to libghostty-vt
    _ghostty*                 that library: loading and C interface, terminals and copies, reading rows
    model                     screens, rows, styles as plain values
    repaint, vt_writer        those values as the bytes that draw them on a client's terminal
    render                    the same as text and HTML

Importing this
loads no native library: `emulator.unavailable_reason` does, and returns why this machine has none, or None.
"""
