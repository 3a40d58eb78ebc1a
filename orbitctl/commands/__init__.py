"""The command tree, a module for each group; `orbitctl.cli` imports one when it is called.

    session, create, live, watch, multi_host     sessions: records, new ones, running ones, lists
    snapshot, workspace, maintenance, rpc        the rest of the store
    daemon, service, config, status, doctor      the daemon and its surroundings
    completion, complete_names                   scripts for shells, and the names that they offer
    dial_stdio                                   the far end of `--host`
    group, arguments, session_table              what commands share: common options, argument types, columns

A command reads its arguments, asks `app.client`, and shows the answer with `app.show`.
"""
