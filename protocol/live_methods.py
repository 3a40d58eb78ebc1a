"""The rows of the method table for live sessions, and what the daemon tells unasked."""

from __future__ import annotations

from protocol import errors as e
from protocol import live as v
from protocol import reports as r
from protocol import types as t
from protocol.method import Method, Notification

_STORAGE = (e.StorageFull, e.StorageCorrupt, e.StorageReadOnly)
_RUNNING = (e.SessionNotFound, e.NotRunning)

SESSION_START: Method[v.SessionStart, t.Session] = Method(
    "session.start",
    v.SessionStart,
    t.Session,
    "Run a session's program on a terminal that the daemon owns.",
    (e.SessionNotFound, e.AlreadyRunning, e.SpawnFailed, e.NameTaken, *_STORAGE),
)
SESSION_ATTACH: Method[v.SessionAttach, v.Attached] = Method(
    "session.attach", v.SessionAttach, v.Attached, "Be sent a session's output from here on.", _RUNNING
)
SESSION_LEAVE: Method[v.ByAttachment, r.Empty] = Method(
    "session.leave",
    v.ByAttachment,
    r.Empty,
    "End an attachment, as closing the connection does.",
    (e.NotRunning,),
)
SESSION_INPUT: Method[v.SessionInput, r.Empty] = Method(
    "session.input", v.SessionInput, r.Empty, "Type into an attached session.", (e.NotRunning,)
)
SESSION_RESIZE: Method[v.SessionResize, r.Empty] = Method(
    "session.resize",
    v.SessionResize,
    r.Empty,
    "Tell the window's size; the last to tell leads.",
    (e.NotRunning,),
)
SESSION_SEND: Method[v.SessionSend, r.Empty] = Method(
    "session.send", v.SessionSend, r.Empty, "Type into a session without attaching.", _RUNNING
)
SESSION_SCREEN: Method[v.SessionScreen, v.Screen] = Method(
    "session.screen",
    v.SessionScreen,
    v.Screen,
    "Return a session's screen, as it is or as it was saved.",
    (e.SessionNotFound, e.SnapshotNotFound, e.SnapshotCorrupt),
)
SESSION_WAIT: Method[v.SessionWait, v.Exit] = Method(
    "session.wait",
    v.SessionWait,
    v.Exit,
    "Wait until a session's program ends, and tell how.",
    (*_RUNNING, e.RequestTimeout),
)
SESSION_SIGNAL: Method[v.SessionSignal, r.Empty] = Method(
    "session.signal", v.SessionSignal, r.Empty, "Send a signal to a session's process group.", _RUNNING
)

OUTPUT: Notification[v.OutputNotice] = Notification("session.output", v.OutputNotice, "The program wrote something.")
REPAINT: Notification[v.RepaintNotice] = Notification(
    "session.repaint", v.RepaintNotice, "The whole screen, after output was left out or the size changed."
)
EXITED: Notification[v.ExitedNotice] = Notification("session.exited", v.ExitedNotice, "The program has ended.")
DETACHED: Notification[v.DetachedNotice] = Notification(
    "session.detached", v.DetachedNotice, "The attachment was ended by `session.detach`."
)
