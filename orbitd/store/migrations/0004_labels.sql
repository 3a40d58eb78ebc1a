-- Labels of sessions: a JSON object of texts, NULL for none. The column stands behind the checksum, which leaves it out
-- while it is NULL: the rows of an earlier Orbit keep theirs.
BEGIN IMMEDIATE;

ALTER TABLE sessions ADD COLUMN labels TEXT;
ALTER TABLE archived_sessions ADD COLUMN labels TEXT;

PRAGMA user_version = 4;
COMMIT;
