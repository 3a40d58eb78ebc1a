-- Sessions, their snapshots, workspaces, and the archive of old sessions.
-- Times are RFC 3339 in UTC with microseconds, so that text order is time order.
-- Blobs stand last in a row: reading what is before them never loads them.
-- BEGIN and COMMIT stand here because sqlite3's executescript commits an open transaction first.
BEGIN IMMEDIATE;

CREATE TABLE workspaces (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    layout TEXT NOT NULL,
    active_session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL
) STRICT;
CREATE INDEX idx_workspaces_active_session_id ON workspaces (active_session_id);

CREATE TABLE sessions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    session_type TEXT NOT NULL CHECK (session_type IN ('local', 'ssh')),
    created_at TEXT NOT NULL,
    last_active TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'detached', 'terminated')),
    config TEXT NOT NULL,
    workspace_id TEXT REFERENCES workspaces (id) ON DELETE SET NULL
) STRICT;
CREATE INDEX idx_sessions_status ON sessions (status);
CREATE INDEX idx_sessions_workspace_id ON sessions (workspace_id);
CREATE UNIQUE INDEX idx_sessions_name ON sessions (name) WHERE name IS NOT NULL AND status != 'terminated';

-- ordinal counts a session's snapshots from 1 and is never given twice. keyframe 1: the blobs are
-- self-contained; 0: they need the bytes of the session's next newer snapshot.
CREATE TABLE session_snapshots (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    snapshot_at TEXT NOT NULL,
    format TEXT NOT NULL CHECK (format IN ('opaque', 'vt')),
    cols INTEGER,
    rows INTEGER,
    cwd TEXT,
    ordinal INTEGER NOT NULL,
    keyframe INTEGER NOT NULL CHECK (keyframe IN (0, 1)),
    buffer_bytes INTEGER NOT NULL,
    scrollback_bytes INTEGER,
    native_bytes INTEGER,
    raw_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    terminal_buffer BLOB NOT NULL,
    scrollback BLOB,
    native_state BLOB
) STRICT;
-- With the sizes in it, statistics and cleanup read this index only.
CREATE INDEX idx_snapshots_session_id ON session_snapshots (session_id, seq, raw_bytes, stored_bytes);
CREATE INDEX idx_snapshots_snapshot_at ON session_snapshots (snapshot_at);

-- The same columns in the same order, so that rows move as they are.
CREATE TABLE archived_sessions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    session_type TEXT NOT NULL,
    created_at TEXT NOT NULL,
    last_active TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status = 'archived'),
    config TEXT NOT NULL,
    workspace_id TEXT
) STRICT;

CREATE TABLE archived_snapshots (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES archived_sessions (id) ON DELETE CASCADE,
    snapshot_at TEXT NOT NULL,
    format TEXT NOT NULL,
    cols INTEGER,
    rows INTEGER,
    cwd TEXT,
    ordinal INTEGER NOT NULL,
    keyframe INTEGER NOT NULL,
    buffer_bytes INTEGER NOT NULL,
    scrollback_bytes INTEGER,
    native_bytes INTEGER,
    raw_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    terminal_buffer BLOB NOT NULL,
    scrollback BLOB,
    native_state BLOB
) STRICT;
CREATE INDEX idx_archived_snapshots_session_id ON archived_snapshots (session_id, seq, raw_bytes, stored_bytes);

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA application_id = 0x4F524254;
PRAGMA user_version = 1;
COMMIT;
