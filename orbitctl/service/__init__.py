"""orbitd as a service of systemd's user manager or of launchd.

    manager    which of the two this system has; start and log of an installed service
    systemd, launchd   one class for each, spoken to by systemctl and launchctl
    base       what both are to the commands, and how their programs are run
    units      the unit files: filled in from templates, written, recognized as ours, removed

`orbitctl.commands.service` and `orbitctl.client.daemon` call `manager`; `manager` calls the rest.
"""
