-- Machines. Times are milliseconds since 1970, unless a name says otherwise.
CREATE TABLE machines (
  id TEXT PRIMARY KEY,                        -- the agent's id: a lower-case UUID
  state TEXT NOT NULL,                        -- pending, approved, revoked
  credential TEXT NOT NULL DEFAULT 'token',   -- token, shared
  token_hash TEXT NOT NULL DEFAULT '',        -- SHA-256
  next_token_hash TEXT NOT NULL DEFAULT '',   -- handed out, not used yet; `wanted`: to be handed out
  token_until INTEGER NOT NULL DEFAULT 0,     -- end of token_hash; 0: when its successor is used, -1: ten minutes after that is handed out
  display_name TEXT NOT NULL DEFAULT '',      -- given at the hub
  own_labels TEXT NOT NULL DEFAULT '{}',      -- given at the hub; win over the machine's
  expected_off INTEGER NOT NULL DEFAULT 0,    -- meant to be off: no alarm
  hostname TEXT NOT NULL DEFAULT '',          -- from here: as registered
  ip TEXT NOT NULL DEFAULT '',
  os TEXT NOT NULL DEFAULT '',
  arch TEXT NOT NULL DEFAULT '',
  labels TEXT NOT NULL DEFAULT '{}',
  plugins TEXT NOT NULL DEFAULT '[]',
  features TEXT NOT NULL DEFAULT '[]',
  agent_version TEXT NOT NULL DEFAULT '',
  address TEXT NOT NULL DEFAULT '',           -- where its connection comes from
  presence TEXT NOT NULL DEFAULT 'never',     -- never, online, stopped, lost
  presence_at INTEGER NOT NULL DEFAULT 0,
  down_reported INTEGER NOT NULL DEFAULT 0,   -- people were told that it is down: 1 of it alone, else in that round
  last_seen_at INTEGER NOT NULL DEFAULT 0,
  heartbeat TEXT NOT NULL DEFAULT '{}',       -- the last one
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX idx_machines_token ON machines(token_hash) WHERE token_hash <> '';
CREATE INDEX idx_machines_next_token ON machines(next_token_hash) WHERE next_token_hash <> '';
CREATE TABLE join_codes (
  id TEXT PRIMARY KEY,
  code_hash TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL DEFAULT '',              -- for people
  labels TEXT NOT NULL DEFAULT '{}',          -- become own_labels of the machine
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  machine_id TEXT NOT NULL DEFAULT '',        -- who used it
  used_at INTEGER
) WITHOUT ROWID;
-- Readings of heartbeats, one row a minute; the keeper thins them out.
CREATE TABLE machine_readings (
  machine_id TEXT NOT NULL REFERENCES machines(id) ON DELETE CASCADE,
  at INTEGER NOT NULL,                        -- the minute
  cpu_pct REAL, mem_pct REAL, disk_pct REAL, load1 REAL, temp_c REAL,
  PRIMARY KEY (machine_id, at)
) WITHOUT ROWID;

-- Alerts: one row for what is wrong at one place, from the first event to the recovery.
CREATE TABLE alerts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  machine_id TEXT NOT NULL DEFAULT '',        -- empty: the hub itself
  alert_key TEXT NOT NULL,
  check_name TEXT NOT NULL,
  target TEXT NOT NULL,
  level TEXT NOT NULL,                        -- of the last event; Ok when recovered
  worst TEXT NOT NULL,
  labels TEXT NOT NULL,
  attrs TEXT NOT NULL DEFAULT '{}',
  description TEXT NOT NULL DEFAULT '',
  description_format TEXT NOT NULL DEFAULT '',
  report TEXT NOT NULL DEFAULT '',            -- a diagnosis, Markdown
  events INTEGER NOT NULL DEFAULT 1,
  opened_at INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,                -- time of the last event
  closed_at INTEGER,                          -- null: open
  close_reason TEXT NOT NULL DEFAULT '',      -- recovered, moved, gone, by hand
  acknowledged_at INTEGER,
  acknowledged_by TEXT NOT NULL DEFAULT '',
  note TEXT NOT NULL DEFAULT '',
  silenced_until INTEGER NOT NULL DEFAULT 0,
  silenced_by TEXT NOT NULL DEFAULT '',
  told TEXT NOT NULL DEFAULT '',              -- level that people were told of and not told the end of
  told_at INTEGER NOT NULL DEFAULT 0,
  tell_at INTEGER NOT NULL DEFAULT 0,         -- when there is something to tell; 0: nothing
  told_as INTEGER NOT NULL DEFAULT 0          -- 0 alone, 1 with a note that it comes and goes, 2 in a summary of
                                              -- its machine, 3 of all machines
);
CREATE UNIQUE INDEX idx_alerts_open ON alerts(machine_id, alert_key) WHERE closed_at IS NULL;
CREATE INDEX idx_alerts_key ON alerts(machine_id, alert_key, closed_at);
CREATE INDEX idx_alerts_place ON alerts(machine_id, check_name, target) WHERE closed_at IS NULL;
CREATE INDEX idx_alerts_tell ON alerts(tell_at) WHERE tell_at > 0;
CREATE INDEX idx_alerts_closed ON alerts(closed_at) WHERE closed_at IS NOT NULL;
CREATE TABLE alert_events (
  machine_id TEXT NOT NULL,
  alert_key TEXT NOT NULL,
  event_time INTEGER NOT NULL,                -- Unix seconds
  event_status TEXT NOT NULL,
  alert_id INTEGER,                           -- null: an Ok for nothing that was open
  received_at INTEGER NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  attrs TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (machine_id, alert_key, event_time, event_status)
) WITHOUT ROWID;
CREATE INDEX idx_alert_events_received ON alert_events(received_at);
CREATE TABLE silences (
  id TEXT PRIMARY KEY,
  matchers TEXT NOT NULL,                     -- labels, and machine, check, target; `*` at the end means prefix
  until INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  note TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;

-- Sessions on machines: ids are never used twice.
CREATE TABLE machine_sessions (
  id TEXT PRIMARY KEY,
  machine_id TEXT NOT NULL,
  kind TEXT NOT NULL,                         -- inspect, diagnose, chat
  identity TEXT NOT NULL,
  conversation_id TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL,                        -- running, ok, empty, error, cancelled, timeout, lost
  error TEXT NOT NULL DEFAULT '',
  code TEXT NOT NULL DEFAULT '',
  tokens_in INTEGER NOT NULL DEFAULT 0,
  tokens_out INTEGER NOT NULL DEFAULT 0,
  started_at INTEGER NOT NULL,
  ended_at INTEGER
) WITHOUT ROWID;
CREATE INDEX idx_machine_sessions_started ON machine_sessions(machine_id, started_at);
ALTER TABLE turns ADD COLUMN kind TEXT NOT NULL DEFAULT '';    -- inspect, diagnose; empty: a message
ALTER TABLE turns ADD COLUMN params TEXT NOT NULL DEFAULT '';  -- JSON, of those

-- Notifications on their way. A row leaves when its channel has taken it, or when it is given up.
CREATE TABLE notices (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel TEXT NOT NULL,
  dedup TEXT NOT NULL,                        -- a second one of the same key and channel is the same notice
  body TEXT NOT NULL,                         -- JSON
  state TEXT NOT NULL DEFAULT 'waiting',      -- waiting, failed
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX idx_notices_next ON notices(next_at) WHERE state = 'waiting';
