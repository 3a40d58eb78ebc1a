"""The commands: one module for each group, imported when the group is called.

    session, create, live, session_list        sessions: records, new ones, live ones, several hosts and --watch
    snapshot, workspace, maintenance, rpc      the rest of the store
    daemon, service, config                    the daemon, its service, its settings
    status, doctor, doctor_checks              the state of the daemon and of its surroundings
    completion                                 scripts for shells, and the names that they complete
    dial_stdio                                 the remote end of `--host`
    group, arguments, session_table            shared: common options, argument types, the table of sessions

A command reads its arguments, calls the daemon through its `App`, and prints the answer with `app.show`.
"""
