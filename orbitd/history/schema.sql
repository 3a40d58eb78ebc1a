-- The database of histories, history.db. Times are milliseconds since the epoch; positions are those of the session's
-- journal (orbitd.sessions.journal). Each row has a checksum of its other columns (orbitd.history.database). What is
-- long stands last: SQLite reads what comes before it without it.
-- What is recorded of a session: up to which position, which line comes next, and what it takes.
CREATE TABLE films (
    session_id TEXT PRIMARY KEY,
    recorded_to INTEGER NOT NULL,
    next_line INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    film_bytes INTEGER NOT NULL,
    text_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A key frame, and what follows it until the next: the part of a film that is dropped as a whole.
CREATE TABLE groups (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    at INTEGER NOT NULL,
    line INTEGER NOT NULL,           -- how many lines had left the screen at the key frame
    cols INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    to_position INTEGER NOT NULL,    -- this one and the next two change as chunks come, and have no checksum
    to_at INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    native BLOB,                     -- zstd; NULL for a blank screen
    UNIQUE (session_id, position)
) STRICT;

-- Records of a journal between two positions, packed (orbitd.history.packed_records) and compressed; the dictionary is
-- the end of the packed records before it in the group.
CREATE TABLE chunks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    from_position INTEGER NOT NULL,
    to_position INTEGER NOT NULL,
    from_at INTEGER NOT NULL,
    to_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,          -- in the journal
    group_seq INTEGER NOT NULL,
    dictionary_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (session_id, from_position)
) STRICT;
CREATE INDEX idx_chunks_group ON chunks (group_seq, from_position);

-- Lines of text (orbitd.history.text_blocks). The tail is what stood on the screen at the last save: one row a session.
CREATE TABLE texts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    is_tail INTEGER NOT NULL,
    first_line INTEGER NOT NULL,     -- the lowest number in it, or where the next line would have been
    next_line INTEGER NOT NULL,      -- the highest number and one
    from_at INTEGER NOT NULL,
    to_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,          -- of the text
    stored_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    text BLOB NOT NULL,              -- zstd
    runs BLOB NOT NULL               -- zstd
) STRICT;
CREATE INDEX idx_texts_to_at ON texts (to_at, seq);
CREATE INDEX idx_texts_session ON texts (session_id, is_tail, first_line);
