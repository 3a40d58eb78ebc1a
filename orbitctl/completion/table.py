"""What completion knows of every command.

Generated from the command tree by docs/generate.py: importing that tree takes longer than a person waits for a Tab.

Of a command, by its words: what it does; the kinds of its arguments, the last of which may be repeated (`...`); whether
options may stand behind them; of its own options the names, the kind of the value (none for a flag), and help.
A kind says what can stand in a place: `session`, `workspace`, `label`, `file`, `folder`, `command` (another program's
command line), `signal`, `key`, `method`, `subcommands`, `choice:A,B`, `list:A,B` (with commas between), else `text`.
"""

# ruff: noqa: E501  # an entry is on one line
# fmt: off
from __future__ import annotations

COMMANDS: dict[str, tuple[str, tuple[str, ...], bool, tuple[str, ...]]] = {
    "": (
        "Keep terminal sessions: their screens, their workspaces, through reboots",
        (), False,
        (
            "--version||Print orbitctl's version",
        ),
    ),
    "new": (
        "Start a program in a new session, and attach to it",
        ("text", "command...",), True,
        (
            "--name|text|A name that no other open session has",
            "--type|choice:local,ssh|Here, or over ssh [local]",
            "--host|text|The host of an ssh session; implies --type ssh",
            "--port|text|Its port",
            "--user|text|The user there",
            "--workspace|workspace|The workspace that it belongs to",
            "--cwd|folder|The folder that it starts in",
            "--env|text|A variable for the program; stored and shown",
            "--restart||Start it again after a reboot",
            "--reconnect||Start ssh again when its connection is lost",
            "--resume|text|Start it again after a reboot, by this command",
            "--rm||Delete it, into the trash, when its program has ended",
            "-d --detach||Run it in the background, and print which session it is",
            "-A||Attach to the session of this NAME if there is one",
            "--detach-key|text|The keys that detach [C-\\]",
            "--shell-integration|choice:auto,off|Have bash and zsh mark their commands, or not",
        ),
    ),
    "attach": (
        "Attach to a session: show it here, and type into it",
        ("session", "command...",), True,
        (
            "-c --create||Make the session if there is none of this name; it runs COMMAND",
            "--no-start||Refuse a session whose program does not run",
            "-r --read-only||Show the session only: no input, no change of size",
            "--detach-key|text|The keys that detach [C-\\]",
            "--scrollback|text|Lines of history for this terminal [all that it does not have yet]",
        ),
    ),
    "a": (
        "Attach to a session: show it here, and type into it",
        ("session", "command...",), True,
        (
            "-c --create||Make the session if there is none of this name; it runs COMMAND",
            "--no-start||Refuse a session whose program does not run",
            "-r --read-only||Show the session only: no input, no change of size",
            "--detach-key|text|The keys that detach [C-\\]",
            "--scrollback|text|Lines of history for this terminal [all that it does not have yet]",
        ),
    ),
    "ls": (
        "List sessions, oldest first",
        (), True,
        (
            "-a --all||Those that have ended, too",
            "--status|choice:active,detached,terminated,archived,all|Sessions of this status; may be repeated [active, detached]",
            "-l --label|label|Those with this label",
            "--workspace|workspace|Sessions of this workspace",
            "--deleted||Those in the trash instead; `orbitctl undelete` brings one back",
            "--limit|text|At most this many",
            "--watch||Draw the table again every second, until q",
            "--columns|list:id,name,status,state,exit,type,host,workspace,live,size,clients,idle,saved,news,command,title,folder,pid,created,deleted,labels,mark,machine|The columns, such as id,name,exit",
            "--format|text|Print this for each, such as '{name}\\t{status}'",
            "--sort|list:id,name,status,state,exit,type,host,workspace,live,size,clients,idle,saved,news,command,title,folder,pid,created,deleted,labels,mark,machine|Sort by these columns or fields; `-idle` turns one round",
        ),
    ),
    "run": (
        "Run a program in a new session that is named after it",
        ("command...",), False,
        (
            "--name|text|A name that no other open session has",
            "--type|choice:local,ssh|Here, or over ssh [local]",
            "--host|text|The host of an ssh session; implies --type ssh",
            "--port|text|Its port",
            "--user|text|The user there",
            "--workspace|workspace|The workspace that it belongs to",
            "--cwd|folder|The folder that it starts in",
            "--env|text|A variable for the program; stored and shown",
            "--restart||Start it again after a reboot",
            "--reconnect||Start ssh again when its connection is lost",
            "--resume|text|Start it again after a reboot, by this command",
            "--rm||Delete it, into the trash, when its program has ended",
            "-d --detach||Run it in the background, and print which session it is",
            "--detach-key|text|The keys that detach [C-\\]",
            "--shell-integration|choice:auto,off|Have bash and zsh mark their commands, or not",
        ),
    ),
    "open": (
        "Start every session of a workspace that does not run",
        ("workspace",), True,
        (
            "-a --attach||Attach to its active session, or the first that runs",
        ),
    ),
    "kill": (
        "End sessions; their records and their screens stay",
        ("session...",), True,
        (),
    ),
    "rm": (
        "Delete sessions, into the trash; what still runs is ended",
        ("session...",), True,
        (
            "-y --yes||Do not ask",
            "--purge||Delete them for good, with their screens; also out of the trash",
        ),
    ),
    "undelete": (
        "Bring deleted sessions back from the trash",
        ("session...",), True,
        (),
    ),
    "prune": (
        "Delete all sessions that have ended, into the trash",
        (), True,
        (
            "--older|text|Only what ended so long ago (7d, 12h), or before this time",
            "-y --yes||Do not ask",
        ),
    ),
    "logs": (
        "Print what a session's program has printed",
        ("session",), True,
        (
            "-f --follow||Go on with each line that it prints, until it has ended",
            "-n --lines|text|Begin with the last N lines [all]",
        ),
    ),
    "label": (
        "Set labels of a session, and remove them with `KEY-`",
        ("session", "text...",), True,
        (),
    ),
    "resume": (
        "Set the command that starts a session again after a reboot",
        ("session", "command...",), False,
        (
            "--session|session|The session; inside one, this one",
            "--clear||Remove the command: it comes back as any other",
        ),
    ),
    "status": (
        "Show whether the daemon runs, and its state",
        (), True,
        (),
    ),
    "stats": (
        "Show what is stored, and the size of the database",
        (), True,
        (),
    ),
    "events": (
        "Print what has happened, and what happens from now on",
        (), True,
        (
            "-f --follow||Print what happens from now on; with --since or -n, after that",
            "--since|text|Begin at a time, a span such as 10m, or a cursor",
            "--kind|choice:session.*,workspace.*,snapshot.*,terminal.*,command.*,daemon.*,session.created,session.started,session.exited,session.disconnected,session.reconnected,session.attached,session.detached,session.terminated,session.updated,session.deleted,session.undeleted,session.archived,session.restored,workspace.created,workspace.updated,workspace.opened,workspace.parked,workspace.deleted,snapshot.saved,terminal.bell,terminal.notification,terminal.dropped,command.finished,daemon.started,daemon.stopping,daemon.warning,daemon.cleared,session.title,session.cwd,session.progress,session.silent,session.active,session.output_seen|Events of this kind, such as session.exited or 'session.*'",
            "--session|session|Events of this session",
            "--workspace|workspace|Events of this workspace and its sessions",
            "-n --lines|text|Begin with the last N events [all]",
        ),
    ),
    "doctor": (
        "Check everything, and print what is wrong and what to do",
        (), True,
        (),
    ),
    "version": (
        "Show the version of orbitctl, and of the daemon if one runs",
        (), True,
        (),
    ),
    "session": (
        "Create, list and change sessions",
        (), False,
        (),
    ),
    "session show": (
        "Show everything about one session",
        ("session",), True,
        (),
    ),
    "session rename": (
        "Give a session another name, or none",
        ("session", "text",), True,
        (
            "--none||Remove its name",
        ),
    ),
    "session label": (
        "Set labels of a session, and remove them with `KEY-`",
        ("session", "text...",), True,
        (),
    ),
    "session resume": (
        "Set the command that starts a session again after a reboot",
        ("session", "command...",), False,
        (
            "--session|session|The session; inside one, this one",
            "--clear||Remove the command: it comes back as any other",
        ),
    ),
    "session move": (
        "Move a session to a workspace, or out of one",
        ("session", "workspace",), True,
        (
            "--none||Take it out of its workspace",
        ),
    ),
    "session set-status": (
        "Set the status of a session that another program hosts",
        ("session", "choice:active,detached,terminated",), True,
        (),
    ),
    "session restore": (
        "Bring an archived session back, terminated",
        ("session",), True,
        (),
    ),
    "session list": (
        "List sessions, oldest first",
        (), True,
        (
            "--status|choice:active,detached,terminated,archived,all|Sessions of this status; may be repeated [active, detached]",
            "--type|choice:local,ssh|Sessions of this type",
            "--workspace|workspace|Sessions of this workspace",
            "--label|label|Sessions with this label",
            "--deleted||Those in the trash, the one that was deleted last first",
            "--limit|text|At most this many",
            "--watch||Draw the table again every second, until q",
            "--columns|list:id,name,status,state,exit,type,host,workspace,live,size,clients,idle,saved,news,command,title,folder,pid,created,deleted,labels,mark,machine|The columns, such as id,name,exit",
            "--format|text|Print this for each, such as '{name}\\t{status}'",
            "--sort|list:id,name,status,state,exit,type,host,workspace,live,size,clients,idle,saved,news,command,title,folder,pid,created,deleted,labels,mark,machine|Sort by these columns or fields; `-idle` turns one round",
        ),
    ),
    "session create": (
        "Record a new session and print it",
        ("command...",), False,
        (
            "--name|text|A name that no other open session has",
            "--type|choice:local,ssh|Here, or over ssh [local]",
            "--host|text|The host of an ssh session; implies --type ssh",
            "--port|text|Its port",
            "--user|text|The user there",
            "--workspace|workspace|The workspace that it belongs to",
            "--cwd|folder|The folder that it starts in",
            "--env|text|A variable for the program; stored and shown",
            "--restart||Start it again after a reboot",
            "--reconnect||Start ssh again when its connection is lost",
            "--resume|text|Start it again after a reboot, by this command",
            "--rm||Delete it, into the trash, when its program has ended",
        ),
    ),
    "session run": (
        "Run a program in a new session, and attach to it",
        ("command...",), False,
        (
            "--name|text|A name that no other open session has",
            "--type|choice:local,ssh|Here, or over ssh [local]",
            "--host|text|The host of an ssh session; implies --type ssh",
            "--port|text|Its port",
            "--user|text|The user there",
            "--workspace|workspace|The workspace that it belongs to",
            "--cwd|folder|The folder that it starts in",
            "--env|text|A variable for the program; stored and shown",
            "--restart||Start it again after a reboot",
            "--reconnect||Start ssh again when its connection is lost",
            "--resume|text|Start it again after a reboot, by this command",
            "--rm||Delete it, into the trash, when its program has ended",
            "-d --detach||Run it in the background, and print which session it is",
            "--detach-key|text|The keys that detach [C-\\]",
            "--shell-integration|choice:auto,off|Have bash and zsh mark their commands, or not",
        ),
    ),
    "session start": (
        "Start a session's program in the background",
        ("session",), True,
        (
            "--shell-integration|choice:auto,off|Have bash and zsh mark their commands, or not",
        ),
    ),
    "session send": (
        "Send input to a session without attaching",
        ("session", "text...",), True,
        (
            "--key|key|A key after the text: C-c, Up, S-F5; may be repeated",
            "--enter||Press Enter at the end",
        ),
    ),
    "session screen": (
        "Print a session's screen, live or as it was saved",
        ("session",), True,
        (
            "--at|text|The screen as it was: '10 minutes ago', 15:10, a date and a time",
            "--scrollback||Print the scrollback before it",
            "--lines|text|Print so many lines; without --first-line, the last",
            "--first-line|text|Begin at this line, 0 being the scrollback's first; -5 is the fifth last",
            "--format|choice:text,vt,html,svg|Output format [text]",
            "--theme|choice:dark,light|Colours of html and svg [the last client's]",
            "--no-cursor||Draw html and svg without the cursor",
        ),
    ),
    "session wait": (
        "Wait for a program's exit, or for something else of it",
        ("session", "text",), True,
        (
            "--for|choice:exit,output,silence,text,command|What to wait for [exit]",
            "--silence|text|How long a silence is [30]",
        ),
    ),
    "session signal": (
        "Send a signal to a session's programs",
        ("session", "signal",), True,
        (),
    ),
    "session attach": (
        "Attach to a session: show it here, and type into it",
        ("session", "command...",), True,
        (
            "-c --create||Make the session if there is none of this name; it runs COMMAND",
            "--no-start||Refuse a session whose program does not run",
            "-r --read-only||Show the session only: no input, no change of size",
            "--detach-key|text|The keys that detach [C-\\]",
            "--scrollback|text|Lines of history for this terminal [all that it does not have yet]",
        ),
    ),
    "session logs": (
        "Print what a session's program has printed",
        ("session",), True,
        (
            "-f --follow||Go on with each line that it prints, until it has ended",
            "-n --lines|text|Begin with the last N lines [all]",
        ),
    ),
    "session detach": (
        "Detach every client from sessions, which go on",
        ("session...",), True,
        (),
    ),
    "session terminate": (
        "End sessions; their records and their screens stay",
        ("session...",), True,
        (),
    ),
    "session delete": (
        "Delete sessions, into the trash; what still runs is ended",
        ("session...",), True,
        (
            "-y --yes||Do not ask",
            "--purge||Delete them for good, with their screens; also out of the trash",
        ),
    ),
    "session undelete": (
        "Bring deleted sessions back from the trash",
        ("session...",), True,
        (),
    ),
    "session prune": (
        "Delete all sessions that have ended, into the trash",
        (), True,
        (
            "--older|text|Only what ended so long ago (7d, 12h), or before this time",
            "-y --yes||Do not ask",
        ),
    ),
    "session snapshot": (
        "Save a screen of SESSION from FILE, or from stdin (`-`)",
        ("session", "file",), True,
        (
            "--scrollback|file|The scrollback, in a file",
            "--cols|text|The screen's columns",
            "--rows|text|The screen's rows",
        ),
    ),
    "snapshot": (
        "Save screens and print them again",
        (), False,
        (),
    ),
    "snapshot save": (
        "Save a screen of SESSION from FILE, or from stdin (`-`)",
        ("session", "file",), True,
        (
            "--scrollback|file|The scrollback, in a file",
            "--cols|text|The screen's columns",
            "--rows|text|The screen's rows",
        ),
    ),
    "snapshot list": (
        "List a session's snapshots, newest first",
        ("session",), True,
        (
            "--limit|text|At most this many",
            "--columns|list:id,taken,format,cells,screen,scrollback,stored|The columns, such as id,name,exit",
            "--format|text|Print this for each, such as '{name}\\t{status}'",
            "--sort|list:id,taken,format,cells,screen,scrollback,stored|Sort by these columns or fields; `-idle` turns one round",
        ),
    ),
    "snapshot show": (
        "Write a snapshot's bytes to stdout, as they were saved",
        ("text",), True,
        (
            "--latest|session|The newest one of this session",
            "--scrollback||Write the scrollback instead of the screen",
        ),
    ),
    "snapshot delete": (
        "Delete one snapshot for good",
        ("text",), True,
        (
            "-y --yes||Do not ask",
        ),
    ),
    "workspace": (
        "Group sessions under a name and a layout",
        (), False,
        (),
    ),
    "workspace create": (
        "Create a workspace and print it",
        ("text",), True,
        (
            "--layout-type|text|The type of the layout [tabs]",
            "--config|text|The layout's own JSON [{}]",
        ),
    ),
    "workspace list": (
        "List workspaces, oldest first",
        (), True,
        (
            "--limit|text|At most this many",
            "--columns|list:id,name,layout,active,created|The columns, such as id,name,exit",
            "--format|text|Print this for each, such as '{name}\\t{status}'",
            "--sort|list:id,name,layout,active,created|Sort by these columns or fields; `-idle` turns one round",
        ),
    ),
    "workspace show": (
        "Show everything about one workspace",
        ("workspace",), True,
        (),
    ),
    "workspace rename": (
        "Give a workspace another name",
        ("workspace", "text",), True,
        (),
    ),
    "workspace set-layout": (
        "Replace the layout of a workspace, or a part of it",
        ("workspace",), True,
        (
            "--layout-type|text|The type of the layout [as before]",
            "--config|text|The layout's own JSON [as before]",
        ),
    ),
    "workspace set-active": (
        "Set the active session of a workspace",
        ("workspace", "session",), True,
        (
            "--none||Have no active session",
        ),
    ),
    "workspace delete": (
        "Delete a workspace; its sessions stay, without a workspace",
        ("workspace",), True,
        (
            "--delete-sessions||Delete its sessions and their snapshots too",
            "-y --yes||Do not ask",
        ),
    ),
    "workspace open": (
        "Start every session of a workspace that does not run",
        ("workspace",), True,
        (
            "-a --attach||Attach to its active session, or the first that runs",
        ),
    ),
    "workspace park": (
        "End the programs of a workspace; all else is kept",
        ("workspace",), True,
        (),
    ),
    "workspace export": (
        "Write a workspace as JSON, to keep it in a project",
        ("workspace",), True,
        (
            "-o --output|file|Write it to a file [stdout]",
        ),
    ),
    "workspace import": (
        "Make a workspace of an exported one, and print it",
        ("file",), True,
        (
            "--name|text|The workspace's name [as in the file]",
        ),
    ),
    "maintenance": (
        "Save, clean, check and back up the database now",
        (), False,
        (),
    ),
    "maintenance auto-save": (
        "Write changes that are only in memory",
        (), True,
        (),
    ),
    "maintenance cleanup": (
        "Delete all but the newest snapshots of every session",
        (), True,
        (
            "--keep|text|How many a session keeps",
        ),
    ),
    "maintenance archive": (
        "Archive old terminated sessions",
        (), True,
        (
            "--before|text|A date, a time (RFC 3339), or how long ago: 30d, 12h, 2w",
        ),
    ),
    "maintenance vacuum": (
        "Return the database's free pages to the file system",
        (), True,
        (),
    ),
    "maintenance check": (
        "Check the whole database and every snapshot in it",
        (), True,
        (),
    ),
    "maintenance backup": (
        "Copy the database while it is in use",
        ("file",), True,
        (),
    ),
    "maintenance restore": (
        "Replace the database by a backup",
        ("file",), True,
        (
            "-y --yes||Do not ask",
        ),
    ),
    "daemon": (
        "Run, start, stop and watch orbitd",
        (), False,
        (),
    ),
    "daemon run": (
        "Run orbitd in the foreground, in place of this process",
        (), True,
        (
            "--config|file|Configuration file (TOML)",
            "--database|file|Database file",
            "--log-level|choice:debug,info,warning,error|Least severe events",
            "--log-format|choice:text,json|How events are written",
        ),
    ),
    "daemon start": (
        "Start orbitd in the background, unless it runs already",
        (), True,
        (),
    ),
    "daemon stop": (
        "Stop orbitd and wait until it has exited",
        (), True,
        (
            "--all||End the programs of live sessions first",
            "--force||End one that hangs: by SIGTERM, after 5 s by SIGKILL",
        ),
    ),
    "daemon restart": (
        "Stop orbitd, if it runs, and start it again",
        (), True,
        (
            "--force||End one that hangs: by SIGTERM, after 5 s by SIGKILL",
        ),
    ),
    "daemon connections": (
        "List who is connected to the daemon, this command included",
        (), True,
        (),
    ),
    "daemon logs": (
        "Print the end of the daemon's log",
        (), True,
        (
            "-n --lines|text|The last lines [50]",
            "-f --follow||Print new lines as they are written",
        ),
    ),
    "service": (
        "Run orbitd as a service of systemd or launchd",
        (), False,
        (),
    ),
    "service install": (
        "Write the units of this installation, enable and start them",
        (), True,
        (
            "--no-start||Start it at the next login, not now",
        ),
    ),
    "service print": (
        "Print the units as install would write them, and write nothing",
        ("choice:service,socket,plist...",), True,
        (),
    ),
    "service status": (
        "Show the units, whether they are enabled, and whether they run",
        (), True,
        (),
    ),
    "service uninstall": (
        "Stop the service and remove its units",
        (), True,
        (),
    ),
    "config": (
        "Show and check the configuration; no daemon is needed",
        (), False,
        (),
    ),
    "config path": (
        "Print the path of the configuration file, which may be missing",
        (), True,
        (),
    ),
    "config show": (
        "Print the settings in effect, as TOML",
        (), True,
        (),
    ),
    "config check": (
        "Check whether a configuration file can be used",
        ("file",), True,
        (),
    ),
    "rpc": (
        "Call the daemon's methods directly; results are JSON",
        (), False,
        (),
    ),
    "rpc call": (
        "Call METHOD and print its result",
        ("method", "text",), True,
        (),
    ),
    "rpc discover": (
        "Print the OpenRPC document",
        (), True,
        (),
    ),
    "web": (
        "Serve a page with the sessions, and terminals to type into",
        (), True,
        (
            "--port|text|The port; 0 is any free one",
            "--read-only||Print a second URL, through which somebody can watch, and only watch",
        ),
    ),
    "completion": (
        "Print a script that completes commands, options and names",
        ("choice:bash,zsh,fish",), True,
        (),
    ),
    "integration": (
        "Print what has a shell mark its prompts and commands",
        ("choice:bash,zsh,fish",), True,
        (),
    ),
    "help": (
        "Describe a command, or list all of them",
        ("subcommands...",), True,
        (),
    ),
}
COMMON_OPTIONS: tuple[str, ...] = (
    "--json||Print exactly the JSON result of the call",
    "-q --quiet||Print ids only",
    "--socket|file|The daemon's socket",
    "--host|text|Another machine: ssh://[user@]host[:port]",
    "--remote-command|text|The command that runs orbitctl there (orbitctl)",
    "--timeout|text|How long a call may take (30)",
    "--no-autostart||Start no daemon if none runs, as ORBITCTL_NO_AUTOSTART=1 (true, yes) does",
    "-h --help||Show help",
)
KEYS = (
    "Enter",
    "Tab",
    "BackTab",
    "Esc",
    "Space",
    "Backspace",
    "Up",
    "Down",
    "Right",
    "Left",
    "Home",
    "End",
    "Insert",
    "Delete",
    "PageUp",
    "PageDown",
    "F5",
    "F6",
    "F7",
    "F8",
    "F9",
    "F10",
    "F11",
    "F12",
    "F13",
    "F14",
    "F15",
    "F16",
    "F17",
    "F18",
    "F19",
    "F20",
    "F1",
    "F2",
    "F3",
    "F4",
)
METHODS = (
    "daemon.ping",
    "daemon.info",
    "daemon.connections",
    "daemon.shutdown",
    "rpc.discover",
    "$/cancelRequest",
    "$/watchProgress",
    "session.create",
    "session.get",
    "session.find",
    "session.list",
    "session.update_status",
    "session.detach",
    "session.terminate",
    "session.delete",
    "session.undelete",
    "session.list_deleted",
    "session.set_labels",
    "session.set_resume",
    "session.rename",
    "session.move",
    "session.touch",
    "session.restore_archived",
    "session.start",
    "session.attach",
    "session.switch",
    "session.leave",
    "session.input",
    "session.resize",
    "session.refresh",
    "session.send",
    "session.screen",
    "session.wait",
    "session.signal",
    "snapshot.save",
    "snapshot.latest",
    "snapshot.get",
    "snapshot.list",
    "snapshot.delete",
    "workspace.create",
    "workspace.get",
    "workspace.find",
    "workspace.list",
    "workspace.update_layout",
    "workspace.rename",
    "workspace.set_active_session",
    "workspace.delete",
    "workspace.open",
    "workspace.park",
    "workspace.export",
    "workspace.import",
    "events.subscribe",
    "events.unsubscribe",
    "events.list",
    "events.wait",
    "history.search",
    "history.lines",
    "history.timeline",
    "history.export",
    "history.forget",
    "maintenance.auto_save",
    "maintenance.cleanup_snapshots",
    "maintenance.archive",
    "maintenance.vacuum",
    "maintenance.check",
    "maintenance.backup",
    "stats.get",
)
