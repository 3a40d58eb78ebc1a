-- What is known of a session's program: whether it ran when last heard of, how it ended, its size, title and folder,
-- and when its screen was last saved. JSON, since nothing is ever looked up by it; NULL for a session that has none.
BEGIN IMMEDIATE;

ALTER TABLE sessions ADD COLUMN program TEXT;
ALTER TABLE archived_sessions ADD COLUMN program TEXT;

PRAGMA user_version = 2;
COMMIT;
