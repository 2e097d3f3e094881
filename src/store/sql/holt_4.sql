-- Schedules, tokens of tools, what agents change about themselves. Times are milliseconds since 1970, unless a name says otherwise.

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
