-- Why the user's sessions must end; cleared when they have ended. Written together
-- with the change, so that a crash or a stopped server forgets nobody.
ALTER TABLE users ADD COLUMN revoke_reason TEXT;

CREATE INDEX users_to_revoke ON users (user_id) WHERE revoke_reason IS NOT NULL;

-- A session asks for the login before its own.
ALTER TABLE users ADD COLUMN previous_login_at REAL;
ALTER TABLE users ADD COLUMN previous_login_address TEXT NOT NULL DEFAULT '';
