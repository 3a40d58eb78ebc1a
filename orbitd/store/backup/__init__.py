"""Copies of the database, and what to do with a damaged one.

    copy       a consistent copy while the database is in use
    daily      the automatic backup: when, how many
    copies     automatic backups in their folder: names, whether one is current, whether one is good
    restore    a backup put in the database's place (`orbitd --restore`)
    recovery   a database that may be damaged: looked at, set aside; the newest good backup found

`copy` and `recovery` are used by `store.database` too; `daily` and `restore` by the daemon alone.
"""
