"""Sessions that are more than rows of the store: programs on terminals of the daemon, their journals, their clients.

    methods                       the methods that concern programs: start, screen, terminate, ...
    workspaces                    start the programs of all sessions of a workspace, or end them
    session                       one session: all that is known of it, and the table of its states
    registry                      the sessions, and the memory that their pictures share
    terminal                      reading a terminal through the landing buffer; writing; its size
    journal, journal_file, journal_repair
                                  output since the last snapshot: positions; records; damage
    attachment, frames            one client of a session: what it is sent, and its own methods (input, resize)
    program_input                 what its terminal has not taken yet, and the calls that wait for that
    news                          what its program has said, rung and printed: marks on the session, and events
    files, saver, saved_state     snapshot and journal on disk; when a screen is saved, and in which form
    private_memory                what a private session has in the place of files: memory that the keeper holds
    circles                       where a client sits; no session may show itself
    folders                       the folder that a program is in
    programs, endings             start and take over; how programs end: exit, terminate, signals
    restore                       at the daemon's start: take over what runs, start again what comes back
    reconnecting                  back-off after a lost ssh connection
    keeper_connection             the keeper's client
    command_line, ssh_agent       what a program is started with; the link to the user's ssh agent
    shell_integration             how bash and zsh are started, so that they mark their commands

Input goes attachment -> session -> terminal. Output goes terminal -> landing buffer -> journal -> attachments: bytes
that nothing here parses. The picture of a session is drawn elsewhere, out of the same journal: `orbitd.screens.client`.
"""
