"""Live sessions: programs that run on terminals of the daemon, their screens, and the clients attached to them.

    session_methods                     the methods that concern programs: start, attach, input, terminate, ...
    programs, termination               start and take over; how programs end: exit, terminate, signals
    session_restore                     at the daemon's start: take over what runs, restart shells after a reboot
    registry, session, attachment       the live sessions; one of them; one client of it
    pty_master, screen                  reading and writing a terminal; its emulator and journal
    screen_restore, saver               a screen out of snapshot and journal; when and how it is saved
    command_line, ssh_agent             what a program is started with; the link to the user's ssh agent
    keeper_connection, ssh_reconnect    the keeper's client; back-off after a lost ssh connection
    scrollback_budget                   memory of all histories

Input goes session_methods -> session -> pty_master. Output goes pty_master -> journal -> emulator -> attachments,
in this order. Everything runs on the event loop, except what restores,
reads or encodes a whole screen: that has a thread.
"""
