"""The commands: one module for each group, imported when the group is called.

    session, session_create, session_live      sessions: records, new ones, running ones
    session_attach, session_logs, session_end  showing them, what they have printed, ending and deleting them
    search, session_export                     what they have shown: found, and as a file
    session_ls, session_list_views             `ls` and `session list`; several hosts, and --watch
    session_replay                             a session's film, played on the terminal
    workspace_open, workspace_file             all sessions of a workspace at once; a workspace as a file of a project
    help                                       the help of one screen, and what other programs' words mean
    snapshot, workspace, maintenance, rpc      the rest of the store
    daemon, service, config                    the daemon, its service, its settings
    events                                     what has happened, and what happens from now on
    status, doctor, doctor_checks              the state of the daemon and of its surroundings
    completion, integration                    scripts for shells
    web                                        a page with terminals for the browser
    dial_stdio                                 the remote end of `--host`
    group, arguments, list_options             shared: common options, argument types, --columns, --format, --sort
    session_table                              shared: how a session is shown and named
    history_note                               what is said once: that history is kept

Most commands read their arguments, call the daemon through their `App`, and print the answer with `app.show`.
"""
