"""What the user of a command sees.

    output     writes data to stdout and all else to stderr
    listing    lays out tables for a terminal and for a pipe, and lists of sessions, from plain JSON
    stdout     what stdout is: its width, whether it is a terminal, its encoding
    text       measures widths, writes times and sizes
    pager      shows what is long on a terminal, a page at a time
    spinner    shows on a terminal that something takes long

Commands pass values in; nothing here calls the daemon or knows click.
"""
