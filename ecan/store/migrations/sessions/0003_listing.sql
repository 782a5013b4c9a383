-- Operators list sessions by public id (the primary key), and those that were given up.
CREATE INDEX sessions_failed ON sessions (sid) WHERE failed = 1;
