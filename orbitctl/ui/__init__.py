"""What a person sees of a command: text made safe, tables, a spinner.

    output     data to stdout, all else to stderr; tables on a terminal and in a pipe
    text       control characters made visible, widths, times, sizes
    spinner    shows on a terminal that something takes long

Commands pass values in; nothing here knows the daemon, the client or click.
"""
