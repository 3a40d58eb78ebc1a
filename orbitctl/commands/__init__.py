"""The commands: one module for each group, imported when the group is called.

    session, session_create, session_live      sessions: records, new ones, running ones
    session_list_views                         `session list` of several hosts, and with --watch
    snapshot, workspace, maintenance, rpc      the rest of the store
    daemon, service, config                    the daemon, its service, its settings
    status, doctor, doctor_checks              the state of the daemon and of its surroundings
    completion                                 scripts for shells, and the names that they complete
    dial_stdio                                 the remote end of `--host`
    group, arguments, session_table            shared: common options, argument types, the table of sessions

Most commands read their arguments, call the daemon through their `App`, and print the answer with `app.show`.
"""
