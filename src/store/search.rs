//! Full-text search over stored messages (SQLite FTS5).

use std::sync::Arc;

use rusqlite::params;

use crate::store::{Db, StoreError, time};

/// Best matches first. `snippet` marks nothing and shows about 30 words around the match.
const SEARCH: &str = "SELECT m.conversation_id, i.title, m.role, m.created_at,
    snippet(messages_fts, 0, '', '', '…', 30)
    FROM messages_fts f JOIN messages m ON m.id = f.rowid JOIN conversation_info i ON i.conversation_id = m.conversation_id
    WHERE messages_fts MATCH ?1 AND i.owner = ?2 ORDER BY f.rank, m.id DESC LIMIT ?3";
/// More words make no better search.
const WORDS_MAX: usize = 16;

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMessage {
    pub conversation_id: String,
    pub title: String,
    /// `user` or `assistant`.
    pub role: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The words around the match.
    pub snippet: String,
}

/// Finds messages of `holt.db`.
pub struct MessageSearch {
    db: Arc<Db>,
}

impl MessageSearch {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Messages of conversations that `owner` began, with all words of the query, else with any of them. Words match
    /// from their beginning, without regard to case and accents. A query without a word finds nothing.
    pub fn find(&self, owner: &str, query: &str, count: usize) -> Result<Vec<FoundMessage>, StoreError> {
        let words = words(query);
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.run(owner, &words.join(" AND "), count)?;
        if all.is_empty() && words.len() > 1 {
            return self.run(owner, &words.join(" OR "), count);
        }
        Ok(all)
    }

    fn run(&self, owner: &str, expression: &str, count: usize) -> Result<Vec<FoundMessage>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(SEARCH)?;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![expression, owner, count], |row| {
                let created: Option<String> = row.get(3)?;
                Ok(FoundMessage {
                    conversation_id: row.get(0)?,
                    title: row.get(1)?,
                    role: row.get(2)?,
                    created_at: created.as_deref().and_then(time::parse_ms).unwrap_or(0),
                    snippet: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// The words as FTS5 strings with a star: nothing in a query is an operator.
fn words(query: &str) -> Vec<String> {
    query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(WORDS_MAX)
        .map(|word| format!("\"{word}\"*"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Arc<Db> {
        let db = Arc::new(Db::in_memory().unwrap());
        db.write(|tx| {
            for (id, owner) in [("a", "user:admin"), ("b", "key:other")] {
                tx.execute("INSERT INTO conversations(id, adapter, external_id) VALUES (?1, 'api', ?1)", [id])?;
                let info = "INSERT INTO conversation_info(conversation_id, agent, owner, title, last_at)
                    VALUES (?1, 'default', ?2, 'T', 1)";
                tx.execute(info, [id, owner])?;
            }
            Ok(())
        })
        .unwrap();
        db
    }

    fn say(db: &Db, conversation: &str, content: &str) {
        let insert = "INSERT INTO messages(conversation_id, role, content, created_at)
            VALUES (?1, 'user', ?2, '2026-01-02T03:04:05.000Z')";
        db.write(|tx| Ok(tx.execute(insert, [conversation, content])?)).unwrap();
    }

    #[test]
    fn words_are_found_whatever_their_case_accents_and_end() {
        let db = database();
        say(&db, "a", "The router's password reset needs a paperclip");
        say(&db, "a", "Die Wärmepumpe läuft im Keller");
        say(&db, "a", "100% of users_all said: it's \"fine\" (really)");
        say(&db, "b", "another paperclip");
        let search = MessageSearch::new(Arc::clone(&db));
        let check = |query: &str, expected: usize| {
            assert_eq!(search.find("user:admin", query, 10).unwrap().len(), expected, "{query}");
        };
        check("paperclip", 1);
        check("PAPER", 1);
        check("waerme", 0);
        check("warmepumpe", 1);
        check("WÄRME keller", 1);
        check("router keller", 2);
        check("\"fine\" AND NOT (", 1);
        check("100% users_", 1);
        check("NEAR(", 0);
        check("content:router", 1);
        check("% _ * \" '", 0);
        check("", 0);
        check(&"x ".repeat(1000), 0);
        assert_eq!(search.find("key:other", "paperclip", 10).unwrap().len(), 1);
        assert_eq!(search.find("nobody", "paperclip", 10).unwrap().len(), 0);
        let found = search.find("user:admin", "paperclip", 10).unwrap().remove(0);
        assert_eq!((found.conversation_id.as_str(), found.created_at), ("a", 1_767_323_045_000));
        assert!(found.snippet.contains("needs a paperclip"));
    }

    #[test]
    fn the_index_follows_the_messages() {
        let db = database();
        say(&db, "a", "first words");
        db.write(|tx| Ok(tx.execute("UPDATE messages SET content = 'second words'", [])?)).unwrap();
        let search = MessageSearch::new(Arc::clone(&db));
        assert_eq!(search.find("user:admin", "first", 10).unwrap().len(), 0);
        assert_eq!(search.find("user:admin", "second", 10).unwrap().len(), 1);
        db.write(|tx| Ok(tx.execute("DELETE FROM messages", [])?)).unwrap();
        assert_eq!(search.find("user:admin", "second", 10).unwrap().len(), 0);
        let check = "INSERT INTO messages_fts(messages_fts, rank) VALUES ('integrity-check', 1)";
        db.write(|tx| Ok(tx.execute(check, [])?)).unwrap();
    }
}
