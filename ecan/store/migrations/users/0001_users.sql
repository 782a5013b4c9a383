-- Accounts. Times are UTC epoch seconds.
CREATE TABLE users (
    user_id                INTEGER PRIMARY KEY AUTOINCREMENT,
    username               TEXT NOT NULL,
    username_key           TEXT NOT NULL UNIQUE, -- folded: what makes two names the same
    email                  TEXT NOT NULL DEFAULT '',
    name                   TEXT NOT NULL DEFAULT '',
    role                   TEXT NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    lang                   TEXT NOT NULL DEFAULT 'en',
    password_hash          TEXT NOT NULL,
    disabled               INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    auth_version           INTEGER NOT NULL DEFAULT 1, -- +1 when logins made before must end
    created_at             REAL NOT NULL,
    last_login_at          REAL,
    last_login_address     TEXT NOT NULL DEFAULT ''
) STRICT;
