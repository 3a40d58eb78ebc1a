"""Live sessions: programs that run on terminals of the daemon, their screens, and the clients attached to them.

    session_methods                     every method of session.*: the store's answers with what runs laid over them
    programs, exits, session_restore    start, end and, at the daemon's start, take over or restart programs
    registry, session, attachment       the live sessions; one of them; one client of it
    pty_master, screen                  reading and writing a terminal; its emulator and journal
    screen_restore, saver               a screen out of snapshot and journal; when and how it is saved
    keeper_connection, launch, ssh_agent, ssh_reconnect, scrollback_budget, background_tasks

Input goes session_methods -> session -> pty_master. Output goes pty_master -> journal -> emulator -> attachments,
in this order. Everything runs on the event loop, except what reads or encodes a whole screen.
"""
