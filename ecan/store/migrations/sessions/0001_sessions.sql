-- Sessions at rest. Times are UTC epoch seconds. What belongs to a session is deleted
-- with it by the store: a foreign key would cost every commit a look-up per row.
CREATE TABLE sessions (
    sid             TEXT NOT NULL PRIMARY KEY,
    key             BLOB NOT NULL,      -- SHA-256 of the secret session id
    user            TEXT NOT NULL,      -- JSON
    user_id         INTEGER NOT NULL,   -- as in user, for the index
    created_at      REAL NOT NULL,
    last_active_at  REAL NOT NULL,
    keep_until_at   REAL NOT NULL,
    incarnation     INTEGER NOT NULL,
    restarts        INTEGER NOT NULL,
    failed          INTEGER NOT NULL CHECK (failed IN (0, 1)),
    epoch           TEXT NOT NULL,
    seq             INTEGER NOT NULL,   -- of the last push
    answers         INTEGER NOT NULL    -- n of the last ledger row
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_of_user ON sessions (user_id);

CREATE TABLE slots (
    sid   TEXT NOT NULL,
    name  TEXT NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (sid, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    sid         TEXT NOT NULL,
    n           INTEGER NOT NULL,       -- their order
    digest      BLOB NOT NULL,
    expires_at  REAL NOT NULL,
    PRIMARY KEY (sid, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
    sid          TEXT NOT NULL,
    n            INTEGER NOT NULL,      -- 1, 2, 3 … within the session; the last 256 are kept
    request_id   TEXT NOT NULL,
    fingerprint  BLOB NOT NULL,
    frame        BLOB NOT NULL,
    at           REAL NOT NULL,
    PRIMARY KEY (sid, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE pushes (
    sid    TEXT NOT NULL,
    seq    INTEGER NOT NULL,            -- the last 1000 are kept
    frame  BLOB NOT NULL,
    PRIMARY KEY (sid, seq)
) STRICT, WITHOUT ROWID;
