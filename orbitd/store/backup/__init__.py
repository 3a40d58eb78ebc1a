"""Copies of the database, and what is done with a damaged one.

    copy       a consistent copy while the database is in use; checks and compares copies
    daily      the automatic backup: when one is made, how many are kept
    restore    a backup put in the database's place (`orbitd --restore`)
    recovery   a database that may be damaged: inspected, set aside; the newest good backup found
    salvage    what is whole in it, brought over into a new one; by raw_file and wal, which read its bytes

`store.database`, `store.store` and `store.maintenance` use `copy` and `recovery`; the daemon uses
`daily` and `restore`, which stand above the SessionManager and the database.
"""
