-- Schedules, tokens of tools, what agents change about themselves. Times are milliseconds since 1970, unless a name says otherwise.

-- What outlives a restart of each schedule of the configuration. Moments are milliseconds since 1970.
CREATE TABLE schedule_state (
  name TEXT PRIMARY KEY,
  expression TEXT NOT NULL,                   -- another one begins anew
  is_enabled INTEGER NOT NULL,
  anchor INTEGER NOT NULL,                    -- intervals count from here
  handled_until INTEGER NOT NULL,             -- every moment up to here was run, missed or skipped
  pruned_until INTEGER NOT NULL DEFAULT 0,    -- runs up to here may have left the history
  last_run INTEGER                            -- when the last run began
) WITHOUT ROWID;
-- What became of each moment: a row before anything is done, its end after it.
CREATE TABLE schedule_runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  schedule TEXT NOT NULL,
  cause TEXT NOT NULL,                        -- due, late, manual
  state TEXT NOT NULL,                        -- wanted, started, ok, failed; nothing was done: missed, skipped
  moment INTEGER NOT NULL,                    -- that it stands for
  until INTEGER NOT NULL,                     -- the last one, if it stands for several (missed, skipped)
  moments INTEGER NOT NULL DEFAULT 1,         -- how many
  reason TEXT NOT NULL DEFAULT '',
  conversation_id TEXT NOT NULL DEFAULT '',
  turn_id INTEGER,
  started_at INTEGER,
  finished_at INTEGER,
  tokens INTEGER NOT NULL DEFAULT 0,
  cost_usd REAL NOT NULL DEFAULT 0
);
-- No moment is run twice.
CREATE UNIQUE INDEX idx_schedule_runs_once ON schedule_runs(schedule, moment)
  WHERE cause <> 'manual' AND state NOT IN ('missed', 'skipped');
CREATE INDEX idx_schedule_runs_schedule ON schedule_runs(schedule, id);
CREATE INDEX idx_schedule_runs_open ON schedule_runs(schedule) WHERE state IN ('wanted', 'started');
-- What agents changed about themselves, with the texts before and after. `place`: the file of a skill.
CREATE TABLE journal(
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    place TEXT NOT NULL,
    before TEXT,
    after TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    undone_at INTEGER,
    undone_by TEXT NOT NULL DEFAULT ''
);
CREATE INDEX journal_by_agent ON journal(agent, id);
