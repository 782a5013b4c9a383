-- Everything of the session store's protocol is durable: used request ids, kept replies,
-- reasons of ended sessions, dead letters, documents, and whether numbers may have gone back.

PRAGMA application_id = 1698914670;     -- "eCan": no other SQLite file of ours or anybody's

CREATE TABLE meta (
    one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    clean       INTEGER NOT NULL CHECK (clean IN (0, 1)),  -- closed with everything written
    mode        TEXT NOT NULL,          -- of durability, that it was last written in
    generation  INTEGER NOT NULL,       -- + 1 whenever commits may have been lost
    probes      INTEGER NOT NULL        -- written to find out whether writing works
) STRICT;

-- A file from before does not say how it was closed: its sessions get other epochs.
INSERT INTO meta SELECT 1, 1, 'commit', EXISTS (SELECT 1 FROM sessions), 0;

ALTER TABLE sessions ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;  -- created in
ALTER TABLE sessions ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0;     -- ledger rows up to here are used_ids
ALTER TABLE sessions ADD COLUMN replies INTEGER NOT NULL DEFAULT 0;     -- n of the last kept reply
ALTER TABLE sessions ADD COLUMN held_until REAL NOT NULL DEFAULT 0;     -- keep_until_at; 0 once it was seen to have passed
UPDATE sessions SET
    held_until = keep_until_at,
    trimmed = coalesce((SELECT min(n) - 1 FROM ledger WHERE ledger.sid = sessions.sid), answers);

DROP INDEX sessions_of_user;
CREATE INDEX sessions_of_user ON sessions (user_id, created_at);
CREATE INDEX sessions_idle ON sessions (last_active_at) WHERE held_until = 0;
CREATE INDEX sessions_held ON sessions (held_until) WHERE held_until > 0;

-- By request id, so that an id that is used again is found without a second index.
ALTER TABLE ledger RENAME TO ledger_1;
CREATE TABLE ledger (
    sid          TEXT NOT NULL,
    request_id   TEXT NOT NULL,
    n            INTEGER NOT NULL,      -- 1, 2, 3 … within the session
    fingerprint  BLOB NOT NULL,
    frame        BLOB NOT NULL,
    at           REAL NOT NULL,
    PRIMARY KEY (sid, request_id)
) STRICT, WITHOUT ROWID;
INSERT OR REPLACE INTO ledger
    SELECT sid, request_id, n, fingerprint, frame, at FROM ledger_1 ORDER BY sid, n;
DROP TABLE ledger_1;

CREATE TABLE used_ids (
    sid   TEXT NOT NULL,
    hash  INTEGER NOT NULL,             -- of a request id that is too old for the ledger
    n     INTEGER NOT NULL,             -- as it was in the ledger
    PRIMARY KEY (sid, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX used_ids_newest ON used_ids (sid, n);

CREATE TABLE replies (
    sid         TEXT NOT NULL,
    n           INTEGER NOT NULL,       -- 1, 2, 3 … within the session; the last 1000 are kept
    request_id  TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    frame       BLOB NOT NULL,
    PRIMARY KEY (sid, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE ended (
    n       INTEGER PRIMARY KEY,        -- the last 10 000 are kept
    sid     TEXT NOT NULL UNIQUE,
    reason  TEXT NOT NULL,
    at      REAL NOT NULL
) STRICT;

CREATE TABLE dead_letters (
    n            INTEGER PRIMARY KEY,   -- the last 1000 are kept
    crash_id     TEXT NOT NULL UNIQUE,
    at           REAL NOT NULL,
    sid          TEXT NOT NULL,
    user_id      INTEGER NOT NULL,
    username     TEXT NOT NULL,
    method       TEXT NOT NULL,
    request_id   TEXT NOT NULL,
    incarnation  INTEGER NOT NULL,
    params       BLOB NOT NULL,         -- JSON
    error        TEXT NOT NULL,
    traceback    TEXT NOT NULL,
    context      BLOB NOT NULL          -- JSON: slot → base64
) STRICT;

-- They stay when the user's sessions end.
CREATE TABLE collections (
    user_id  INTEGER NOT NULL,
    name     TEXT NOT NULL,
    version  INTEGER NOT NULL,          -- + 1 with every change; stays when all documents are gone
    PRIMARY KEY (user_id, name)
) STRICT, WITHOUT ROWID;

-- With rowids: a document may be a megabyte, and b-tree pages of keys should stay small.
CREATE TABLE documents (
    n           INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL,
    collection  TEXT NOT NULL,
    key         TEXT NOT NULL,
    data        BLOB NOT NULL,
    version     INTEGER NOT NULL,       -- of the collection, when it was put
    created     INTEGER NOT NULL        -- version at its first put
) STRICT;
CREATE UNIQUE INDEX documents_by_key ON documents (user_id, collection, key);
CREATE INDEX documents_by_age ON documents (user_id, collection, created);
