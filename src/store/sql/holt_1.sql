-- Contract http-api 13.4.
CREATE TABLE conversations (
  id TEXT PRIMARY KEY,
  adapter TEXT NOT NULL,
  external_id TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
-- Not unique, unlike the reference's: two conversations of one channel must both be listed (W-33).
CREATE INDEX idx_conversations_adapter_ext ON conversations(adapter, external_id);
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation_id TEXT NOT NULL,
  role TEXT NOT NULL,
  content TEXT NOT NULL,
  tokens_used INTEGER DEFAULT 0,
  cost REAL DEFAULT 0.0,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_messages_conv ON messages(conversation_id, created_at);
CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  key_hash TEXT NOT NULL UNIQUE,
  scopes TEXT NOT NULL,
  created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  last_used_at DATETIME,
  revoked_at DATETIME
);
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  email TEXT NOT NULL,
  scopes TEXT NOT NULL DEFAULT '[]',
  user_agent TEXT DEFAULT '',
  ip TEXT DEFAULT '',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  expires_at DATETIME NOT NULL,
  last_seen_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_sessions_email ON sessions(email);
CREATE INDEX idx_sessions_expires ON sessions(expires_at);
CREATE TABLE approvals (
  id TEXT PRIMARY KEY,
  agent_name TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  summary TEXT NOT NULL,
  payload TEXT NOT NULL,
  callback_data TEXT NOT NULL DEFAULT '',
  external_id TEXT NOT NULL,
  adapter_name TEXT NOT NULL,
  conversation_id TEXT NOT NULL DEFAULT '',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  expires_at DATETIME,
  resolved_at DATETIME,
  resolved_by TEXT NOT NULL DEFAULT ''
);
CREATE INDEX idx_approvals_status ON approvals(status, created_at);
CREATE INDEX idx_approvals_callback ON approvals(callback_data);
CREATE INDEX idx_approvals_expires ON approvals(expires_at) WHERE status = 'pending';
CREATE TABLE auto_approve_rules (
  id TEXT PRIMARY KEY,
  agent_name TEXT NOT NULL,
  tool_name TEXT NOT NULL,
  scope TEXT NOT NULL DEFAULT 'permanent',
  conversation_id TEXT NOT NULL DEFAULT '',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  created_by TEXT NOT NULL DEFAULT ''
);
CREATE INDEX idx_auto_approve_agent_tool ON auto_approve_rules(agent_name, tool_name);
CREATE TABLE kv (
  agent_name TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  expires_at DATETIME,
  PRIMARY KEY (agent_name, key)
);
CREATE INDEX idx_kv_expires ON kv(expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE oauth_tokens (
  tool_name TEXT PRIMARY KEY,
  access_token BLOB NOT NULL,
  refresh_token BLOB,
  token_type TEXT DEFAULT 'Bearer',
  expiry DATETIME,
  scopes TEXT,
  client_id TEXT,
  client_secret BLOB,
  token_url TEXT,
  auth_style INTEGER,
  resource_url TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

-- Holt's own. Times are milliseconds since 1970.
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE conversation_info (
  conversation_id TEXT PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
  agent TEXT NOT NULL,
  owner TEXT NOT NULL,          -- identity that began it (W-18)
  title TEXT NOT NULL DEFAULT '',
  message_count INTEGER NOT NULL DEFAULT 0,
  last_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE turns (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
  identity TEXT NOT NULL,
  message_id TEXT,              -- the client's, for retries
  agent TEXT NOT NULL,
  user_name TEXT NOT NULL DEFAULT '',
  origin TEXT NOT NULL,
  text TEXT NOT NULL,
  state TEXT NOT NULL,          -- queued, running, done, failed
  after_seq INTEGER,            -- last number before its first frame
  user_message INTEGER,         -- messages.id
  assistant_message INTEGER,    -- messages.id
  outcome TEXT NOT NULL DEFAULT '',   -- the error code of a failed turn
  created_at INTEGER NOT NULL,
  ended_at INTEGER
);
CREATE INDEX idx_turns_conversation ON turns(conversation_id, id);
CREATE INDEX idx_turns_open ON turns(id) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX idx_turns_message ON turns(identity, message_id) WHERE message_id IS NOT NULL;
CREATE TABLE tool_steps (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  turn_id INTEGER NOT NULL REFERENCES turns(id) ON DELETE CASCADE,
  round INTEGER NOT NULL,
  tool_id TEXT NOT NULL,
  tool TEXT NOT NULL,
  arguments TEXT NOT NULL,
  said TEXT NOT NULL DEFAULT '',      -- the model's text beside the calls, on the first step of a round
  result TEXT NOT NULL,
  failed INTEGER NOT NULL DEFAULT 0,
  duration_ms INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL
);
CREATE INDEX idx_tool_steps_turn ON tool_steps(turn_id, id);
-- Numbers given away before they are used, so that a machine crash never repeats one. No reference to
-- conversations: the numbering of a deleted conversation must not start again under the same epoch.
CREATE TABLE streams (
  session_id TEXT PRIMARY KEY,
  floor_seq INTEGER NOT NULL DEFAULT 0,   -- the last number known to be used; counts once the log was purged
  used_seq INTEGER NOT NULL DEFAULT 0,    -- counts as used, whatever the log says
  reserved_until INTEGER NOT NULL,        -- 0 after a clean stop
  boot_id TEXT NOT NULL
) WITHOUT ROWID;
