"""Which variables of a client's environment are not for a session's program, and which limits a client may send.

A session outlives the window, the ssh connection and the multiplexer that it was started from, and is shown in
others: what names one of those is wrong in it, or was never true. orbitctl does not send such variables, and orbitd
leaves them out of what other clients send.
"""

from __future__ import annotations

OF_A_SERVICE = frozenset((
    b"NOTIFY_SOCKET", b"LISTEN_FDS", b"LISTEN_FDNAMES", b"LISTEN_PID", b"LISTEN_PIDFDID", b"WATCHDOG_PID",
    b"WATCHDOG_USEC", b"INVOCATION_ID", b"JOURNAL_STREAM", b"MANAGERPID", b"MANAGERPIDFDID", b"SYSTEMD_EXEC_PID",
    b"MEMORY_PRESSURE_WATCH", b"MEMORY_PRESSURE_WRITE", b"DEBUG_INVOCATION", b"XPC_SERVICE_NAME",
))  # fmt: skip
"""What systemd (systemd.exec(5)) and launchd set for one process; none of it is meant for a child."""

_OF_A_WINDOW = frozenset((
    # What the terminal is. orbitd sets TERM and COLORTERM itself.
    b"TERM", b"COLORTERM", b"COLORFGBG", b"COLUMNS", b"LINES", b"TERM_FEATURES", b"TERM_SESSION_ID",
    # Which window it is, and of which multiplexer, editor, ssh connection or start by the desktop.
    b"WINDOWID", b"WINDOW", b"STY", b"TMUX", b"TMUX_PANE", b"VTE_VERSION", b"GPG_TTY", b"SSH_TTY", b"SSH_CONNECTION",
    b"SSH_CLIENT", b"INSIDE_EMACS", b"NVIM", b"NVIM_LISTEN_ADDRESS", b"VIM_TERMINAL", b"VIM_SERVERNAME", b"ZED_TERM",
    b"TERMINAL_EMULATOR", b"TILIX_ID", b"GUAKE_TAB_UUID", b"SHELL_SESSION_ID", b"WT_SESSION", b"WT_PROFILE_ID",
    b"DESKTOP_STARTUP_ID", b"XDG_ACTIVATION_TOKEN",
    # What the shell there keeps of itself: shells in a session count and look for themselves.
    b"_", b"SHLVL", b"PWD", b"OLDPWD",
    # What Orbit sets in a session: the client may sit in another one.
    b"ORBIT_SESSION", b"ORBIT_SESSION_NAME", b"ORBIT_SOCKET",
))  # fmt: skip
_PREFIXES = (
    b"TERM_PROGRAM", b"TERMINFO", b"TERMCAP", b"LC_TERMINAL", b"ITERM", b"KITTY_", b"WEZTERM_", b"ZELLIJ",
    b"ALACRITTY_", b"KONSOLE_", b"GHOSTTY_", b"GNOME_TERMINAL_", b"XTERM_", b"VSCODE_", b"JEDITERM_", b"WARP_",
    b"TABBY_", b"CMUX_", b"CONTOUR_", b"TERMINATOR_", b"ConEmu", b"GIO_LAUNCHED_DESKTOP_FILE", b"ORBITCTL_", b"ORBITD_",
    b"_ORBITCTL_",
)  # fmt: skip

LIMITS = frozenset((
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sbsize", "sigpending", "stack", "swap", "kqueues", "npts", "ofile", "vmem",
))  # fmt: skip
"""The limits of getrlimit(2), RLIMIT_NOFILE and so on, of every system. None of them has all."""


def belongs_to_window(name: bytes) -> bool:
    """Return whether a variable says something about the window or the process that has it, and not about the user."""
    return name in _OF_A_WINDOW or name in OF_A_SERVICE or name.startswith(_PREFIXES)
