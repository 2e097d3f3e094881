-- Agents that act: approvals that bind, money, the audit log. Times are milliseconds since 1970.

-- Rules and requests are Holt's to interpret only together with these.
CREATE TABLE approval_info (
  approval_id TEXT PRIMARY KEY REFERENCES approvals(id) ON DELETE CASCADE,
  turn_id INTEGER NOT NULL,
  tool_id TEXT NOT NULL,
  tool TEXT NOT NULL,
  server TEXT NOT NULL DEFAULT '',       -- empty: built in
  arguments_hash TEXT NOT NULL,          -- SHA-256 of the canonical arguments
  decided_by TEXT NOT NULL DEFAULT '',   -- identity
  note TEXT NOT NULL DEFAULT ''          -- why it ended without a decision
) WITHOUT ROWID;
CREATE INDEX idx_approval_info_turn ON approval_info(turn_id);
CREATE TABLE rule_info (
  rule_id TEXT PRIMARY KEY REFERENCES auto_approve_rules(id) ON DELETE CASCADE,
  server TEXT,                           -- null: whichever server has a tool of that name
  expires_at INTEGER                     -- session rules only
) WITHOUT ROWID;

-- The calls of a round that waits for decisions: with them a parked turn resumes.
CREATE TABLE tool_calls (
  turn_id INTEGER NOT NULL REFERENCES turns(id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  round INTEGER NOT NULL,
  tool_id TEXT NOT NULL,
  tool TEXT NOT NULL,
  server TEXT NOT NULL DEFAULT '',
  arguments TEXT NOT NULL,
  shown TEXT NOT NULL DEFAULT '',        -- the arguments as others may see them
  said TEXT NOT NULL DEFAULT '',
  permission TEXT NOT NULL,              -- free, session, permanent, ask, refused
  refusal TEXT NOT NULL DEFAULT '',      -- what the model is told of a refused one
  approval_id TEXT,                      -- only of `ask`
  PRIMARY KEY (turn_id, position)
) WITHOUT ROWID;
ALTER TABLE tool_steps ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tool_steps ADD COLUMN server TEXT NOT NULL DEFAULT '';
CREATE INDEX idx_turns_parked ON turns(id) WHERE state = 'parked';
DROP INDEX idx_turns_open;
CREATE INDEX idx_turns_open ON turns(id) WHERE state IN ('queued', 'running', 'parked');

-- One row for each call of a model: what it cost and who is to be asked.
CREATE TABLE llm_calls (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  day TEXT NOT NULL,                     -- YYYY-MM-DD in the configured time zone
  turn_id INTEGER,
  conversation_id TEXT NOT NULL,
  agent TEXT NOT NULL,
  identity TEXT NOT NULL,                -- `key:<id>`, `login:<e-mail>`, ...: who pays
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0,
  cost_usd REAL NOT NULL DEFAULT 0,
  calls INTEGER NOT NULL DEFAULT 1,      -- more than one where old rows were put together
  pricing TEXT NOT NULL,                 -- provider, registry, fallback, unknown, free
  state TEXT NOT NULL                    -- reserved: the figures are estimates; settled; old: put together
);
CREATE INDEX idx_llm_calls_conversation ON llm_calls(conversation_id);
CREATE INDEX idx_llm_calls_turn ON llm_calls(turn_id);
CREATE INDEX idx_llm_calls_day ON llm_calls(day);
CREATE INDEX idx_llm_calls_open ON llm_calls(id) WHERE state = 'reserved';

-- Who did what, when, from where, with which result. Never a secret, never arguments.
CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,                   -- identity, `agent:<name>`, `cli`, `holt`
  action TEXT NOT NULL,                  -- `login.password`, `key.create`, `approval.approve`, `tool.call`, `config.write`, ...
  target TEXT NOT NULL DEFAULT '',       -- what it was done to
  source TEXT NOT NULL DEFAULT '',       -- address, or `cli`
  result TEXT NOT NULL,                  -- ok, denied, failed
  detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX idx_audit_at ON audit(at);

-- Words of all messages, for searching; the text itself stays in `messages`.
CREATE VIRTUAL TABLE messages_fts USING fts5(
  content, content='messages', content_rowid='id', tokenize='unicode61 remove_diacritics 2'
);
-- What is deleted must not stay readable in the index.
INSERT INTO messages_fts(messages_fts, rank) VALUES ('secure-delete', 1);
INSERT INTO messages_fts(messages_fts) VALUES ('rebuild');
CREATE TRIGGER messages_inserted AFTER INSERT ON messages BEGIN
  INSERT INTO messages_fts(rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
  INSERT INTO messages_fts(messages_fts, rowid, content) VALUES ('delete', old.id, old.content);
END;
CREATE TRIGGER messages_updated AFTER UPDATE OF content ON messages BEGIN
  INSERT INTO messages_fts(messages_fts, rowid, content) VALUES ('delete', old.id, old.content);
  INSERT INTO messages_fts(rowid, content) VALUES (new.id, new.content);
END;
