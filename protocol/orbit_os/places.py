"""Where Orbit's files are unless something names another place (XDG Base Directory Specification 0.8).

A place is worked out when it is asked for: HOME counts only for what no variable names. Who is about to make
something calls `check` first: sudo may keep HOME, su keeps XDG_RUNTIME_DIR, and what root makes in a user's folders
locks that user out.
"""

from __future__ import annotations

import os
import stat

from orbit_os.sockets import fitting_socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it: an `orbitctl ls` is half done in the time of the imports that this saves
    from collections.abc import Mapping

ROOT = 0


class HomeUnusable(Exception):
    """HOME, or a folder that an XDG variable names, cannot be used; the message has its name and why.

    Args:
        message: What is wrong.
        variable: The variable that is to be changed.
        folder: What the user may make instead, where that is allowed.

    Attributes:
        hint: The next step.
    """

    def __init__(self, message: str, variable: str = "HOME", folder: str = "") -> None:
        super().__init__(message)
        self.hint = f"Set {variable} to a folder of your own, or unset it. Nothing was made."
        if variable == "HOME":
            self.hint = (
                "Set HOME to your own home (`sudo -H` does), or XDG_CONFIG_HOME, XDG_DATA_HOME and XDG_STATE_HOME to "
                "folders of your own. Nothing was made."
            )
        if folder:
            self.hint = f"Make {folder} yourself. Or: {self.hint}"


class HomeUnset(HomeUnusable):
    """Nothing says which folder is the user's home."""


class Places:
    """Orbit's files and folders of one user. All are absolute; HomeUnusable is raised where one cannot be decided.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._needs_home = False
        self._found_home = ""
        self._used: list[tuple[str, str, str]] = []

    def check(self) -> None:
        """Refuse a HOME that does not exist, and folders of another user, before something is made in them.

        Only what paths have been derived from is looked at.

        Raises:
            HomeUnusable: One cannot be used.
        """
        if self._needs_home and not os.path.exists(self._home):
            raise HomeUnusable(f"HOME is {self._home}, which does not exist")
        for variable, base, folder in self._used:
            _refuse_another_users(variable, base, folder)

    @property
    def config_file(self) -> str:
        """The configuration; /dev/null, which is an empty one, where there is no home that it could be in."""
        try:
            return os.path.join(self.folder("XDG_CONFIG_HOME", ".config", is_written=False), "config.toml")
        except HomeUnset:
            return os.devnull

    @property
    def database(self) -> str:
        """The database."""
        return os.path.join(self.folder("XDG_DATA_HOME", ".local/share"), "sessions.db")

    @property
    def state_folder(self) -> str:
        """The folder of journals and logs."""
        return self.folder("XDG_STATE_HOME", ".local/state")

    @property
    def run_folder(self) -> str:
        """The folder of what may end with a reboot."""
        return os.path.join(self.runtime_folder, "orbit") if self.runtime_folder else self.state_folder

    @property
    def socket(self) -> str:
        """The daemon's socket, in `run_folder`, or at a short path where that would not fit into sun_path."""
        return fitting_socket_path(os.path.join(self.run_folder, "orbitd.sock"), self.runtime_folder)

    @property
    def runtime_folder(self) -> str:
        """The folder of XDG_RUNTIME_DIR; empty where there is none, or it belongs to another user, as after su.

        One that is missing belongs to who has the folder that it would be made in, or whose uid its name has.
        """
        path = _absolute(self._environ.get("XDG_RUNTIME_DIR", ""))
        if not path:
            return ""
        folder, name = os.path.split(path)
        if folder == "/run/user" and name.isdigit() and int(name) != os.geteuid():  # logind makes these
            return ""
        try:
            return "" if _is_another_users(os.stat(_nearest(path))) else path
        except OSError:
            return path

    def folder(self, variable: str, default: str, name: str = "orbit", *, is_written: bool = True) -> str:
        """Return a folder below one of the specification; a relative value of a variable is ignored, as it asks.

        Args:
            variable: The variable of the specification.
            default: Where that is below HOME if the variable is not set.
            name: The folder in there.
            is_written: Whether something is to be made in it.
        """
        base = _absolute(self._environ.get(variable, ""))
        if base:
            folder = os.path.join(base, name)
        else:
            base, variable = self._home, "HOME"
            self._needs_home |= is_written
            folder = os.path.join(base, default, name)
        self._used.append((variable, base, folder if is_written else base))
        return folder

    def expand(self, path: str) -> str:
        """Return the absolute path for one that is absolute, begins with `~/`, or is relative to the current folder.

        Raises:
            HomeUnusable: HOME is needed, and cannot be used.
            FileNotFoundError: The current folder is needed, and has been deleted.
        """
        if path.startswith("~/"):
            self._needs_home = True
            self._used.append(("HOME", self._home, self._home))
            path = self._home + path[1:]
        return _absolute(path) or os.path.abspath(path)

    @property
    def _home(self) -> str:
        """HOME, or what passwd says where that is not set; whose it is has not been looked at."""
        if self._found_home:
            return self._found_home
        path = self._environ.get("HOME") or _home_in_passwd()
        if not path:
            raise HomeUnset(f"HOME is not set, and uid {os.geteuid()} has no home in passwd")
        if not path.startswith("/"):
            raise HomeUnusable(f"HOME is not an absolute path: {path}")
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        except FileNotFoundError:
            is_folder = True  # `check` refuses it, if something is to be made in it
        except OSError as error:
            raise HomeUnusable(f"HOME is {path}, which cannot be used: {error.strerror}") from error
        if not is_folder:
            raise HomeUnusable(f"HOME is {path}, which is not a folder")
        self._found_home = _absolute(path)
        return self._found_home


def _home_in_passwd() -> str:
    import pwd  # HOME is almost always set

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _absolute(path: str) -> str:
    """Return an absolute path in the one spelling that both programs use; an empty string for a relative one."""
    # normpath would leave two slashes at the beginning, which may mean something to POSIX and do not here.
    return os.path.normpath("/" + path.lstrip("/")) if path.startswith("/") else ""


def _nearest(path: str) -> str:
    """Return the folder itself, or the nearest of its parents that is there."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _is_another_users(found: os.stat_result) -> bool:
    """Return whether what is made in a folder would be made in another user's.

    A folder of the system is nobody's: / and /tmp are homes in containers, and a mount point is often root's.
    """
    is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    return found.st_uid != os.geteuid() and (found.st_uid != ROOT or bool(is_open))


def _refuse_another_users(variable: str, base: str, folder: str) -> None:
    """Refuse to make a folder in another user's, or where it cannot be made.

    Args:
        variable: The variable that names `base`.
        base: A folder that other programs use too.
        folder: What is to be made in it, with its parents; `base` itself where nothing is.

    Raises:
        HomeUnusable: The message has variable, folder and owner.
    """
    nearest = _nearest(folder)
    for each in (base, nearest):
        try:
            found = os.stat(each)
        except OSError:  # not there yet, or no longer
            continue
        is_closed = each == nearest and folder != base and not os.access(each, os.W_OK)
        if _is_another_users(found) or (is_closed and found.st_uid != os.geteuid()):
            where = "which" if each == base else f"where {each}"
            # A group's folder, say: what the user makes there is the user's.
            may_make = each != base and os.geteuid() != ROOT and os.access(each, os.W_OK)
            raise HomeUnusable(
                f"{variable} is {base}, {where} belongs to uid {found.st_uid}, not to you (uid {os.geteuid()})",
                variable,
                folder if may_make else "",
            )
