-- What has happened: a row for each change of a session or a workspace, written in its transaction, and for what
-- programs say. There are no foreign keys: that a session was deleted is told after it.
BEGIN IMMEDIATE;

-- retention: NULL for changes; 1 for what programs say and 2 for saved snapshots, of which each session keeps some.
-- position: where in the session's output it was said. size: of data, in bytes.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    session_id TEXT,
    workspace_id TEXT,
    retention INTEGER,
    position INTEGER,
    size INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX idx_events_session_id ON events (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX idx_events_workspace_id ON events (workspace_id) WHERE workspace_id IS NOT NULL;
-- With the sizes in it, retention reads these two only.
CREATE INDEX idx_events_retention ON events (retention, seq, size);
CREATE INDEX idx_events_said ON events (session_id, retention, seq) WHERE retention IS NOT NULL;

PRAGMA user_version = 6;
COMMIT;
