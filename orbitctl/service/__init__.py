"""orbitd as a service of systemd's user manager or of launchd.

    manager   SystemdUser and Launchd, controlled by systemctl and launchctl; which of them this system has
    units     the unit files: rendered from templates, written, recognized as ours, removed

`orbitctl.commands.service` installs, removes and shows the service; `orbitctl.client.daemon` starts it
where it is installed and no daemon runs. Both call `manager`, and `manager` calls `units`;
the command reads and writes unit files by `units` itself.
"""
