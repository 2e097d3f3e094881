CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
-- One row holds a run of consecutive frames, exactly as they go to a WebSocket.
CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id TEXT NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  at INTEGER NOT NULL,          -- milliseconds since 1970
  frames BLOB NOT NULL
);
CREATE UNIQUE INDEX idx_runs_session ON runs(session_id, last_seq);
