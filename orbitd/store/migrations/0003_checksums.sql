-- A checksum of each row's other columns (`rows.row_checksum`), so that a flipped bit is found and not served.
-- NULL in the rows that an earlier Orbit wrote, until they are filled in the background. Snapshots need no column:
-- their `checksum` covers the bytes, and, in the rows that are written from now on, the other columns too.
BEGIN IMMEDIATE;

ALTER TABLE sessions ADD COLUMN checksum INTEGER;
ALTER TABLE archived_sessions ADD COLUMN checksum INTEGER;
ALTER TABLE workspaces ADD COLUMN checksum INTEGER;

PRAGMA user_version = 3;
COMMIT;
