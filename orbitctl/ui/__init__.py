"""What the user of a command sees.

    output     writes data to stdout and all else to stderr; tables for a terminal and for a pipe
    text       measures widths, writes times and sizes
    spinner    shows on a terminal that something takes long

Commands pass values in; nothing here calls the daemon or knows click.
"""
