-- The trash: when a session was put into it, NULL for all others. With `labels`, behind the checksum.
BEGIN IMMEDIATE;

ALTER TABLE sessions ADD COLUMN deleted_at TEXT;
ALTER TABLE archived_sessions ADD COLUMN deleted_at TEXT;

CREATE INDEX idx_sessions_deleted_at ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX idx_archived_sessions_deleted_at ON archived_sessions (deleted_at) WHERE deleted_at IS NOT NULL;
-- A session in the trash keeps its status and its name, which is free for others.
DROP INDEX idx_sessions_name;
CREATE UNIQUE INDEX idx_sessions_name ON sessions (name)
    WHERE name IS NOT NULL AND status != 'terminated' AND deleted_at IS NULL;
-- For a name that is no longer in use, which means the newest session that had it.
CREATE INDEX idx_sessions_ended_name ON sessions (name)
    WHERE name IS NOT NULL AND status = 'terminated' AND deleted_at IS NULL;
CREATE INDEX idx_archived_sessions_name ON archived_sessions (name) WHERE name IS NOT NULL AND deleted_at IS NULL;

PRAGMA user_version = 5;
COMMIT;
