//! The audit log as the rest of the hub uses it: recording never fails what was done, and floods stay small.
//!
//! No threads of its own: `keeper` calls [`AuditLog::flush`] and [`AuditLog::purge`] now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::limits;
use crate::rt::{clock, lock};
pub use crate::store::audit::{AuditRow, AuditStore, Entry, Filter, Outcome};
use crate::store::{Db, StoreError};

/// Records what happened, and reads it back.
pub struct AuditLog {
    store: AuditStore,
    /// How long entries are kept.
    retention: Duration,
    rows_max: usize,
    /// Guarded by the mutex: what was repeated, by action and source. Nothing is taken under it.
    repeated: Mutex<HashMap<(String, String), Repeats>>,
}

/// The same thing again and again from one place.
struct Repeats {
    since: Instant,
    /// How often beyond the first, which was recorded at once.
    more: u64,
    actor: String,
    result: Outcome,
}

impl AuditLog {
    /// A log over an open database.
    pub fn new(db: Arc<Db>, retention: Duration, rows_max: usize) -> Self {
        Self { store: AuditStore::new(db), retention, rows_max, repeated: Mutex::default() }
    }

    /// Records an entry. Blocks on the disk; a failure is logged and nothing else.
    pub fn record(&self, entry: &Entry<'_>) {
        logged(self.store.add(&[*entry]));
    }

    /// Records what strangers can repeat as often as they like, such as a wrong password. The first of an action from
    /// a source is written at once; the following ones are counted and written as one entry each
    /// [`limits::AUDIT_REPEAT_WINDOW`]. Sources beyond [`limits::AUDIT_SOURCES_MAX`] are counted together.
    pub fn record_repeatable(&self, entry: &Entry<'_>) {
        if self.count_as_new(entry, Instant::now()) {
            self.record(entry);
        }
    }

    fn count_as_new(&self, entry: &Entry<'_>, now: Instant) -> bool {
        let mut repeated = lock(&self.repeated);
        let mut key = (entry.action.to_owned(), entry.source.to_owned());
        if !repeated.contains_key(&key) && repeated.len() >= limits::AUDIT_SOURCES_MAX {
            "many".clone_into(&mut key.1);
        }
        match repeated.get_mut(&key) {
            Some(repeats) => {
                repeats.more += 1;
                false
            }
            None => {
                let repeats = Repeats { since: now, more: 0, actor: entry.actor.to_owned(), result: entry.result };
                repeated.insert(key, repeats);
                true
            }
        }
    }

    /// Writes the counts whose window is over; all of them when the hub stops.
    pub fn flush(&self, stopping: bool) {
        self.flush_at(Instant::now(), stopping);
    }

    fn flush_at(&self, now: Instant, stopping: bool) {
        let is_over =
            |repeats: &Repeats| stopping || now.saturating_duration_since(repeats.since) >= limits::AUDIT_REPEAT_WINDOW;
        let over: Vec<((String, String), Repeats)> =
            lock(&self.repeated).extract_if(|_, repeats| is_over(repeats)).collect();
        let lines: Vec<_> = over
            .into_iter()
            .filter(|(_, repeats)| repeats.more > 0)
            .map(|(key, repeats)| (key, format!("{} more", repeats.more), repeats))
            .collect();
        if lines.is_empty() {
            return;
        }
        let entries: Vec<Entry<'_>> = lines
            .iter()
            .map(|((action, source), detail, repeats)| Entry {
                actor: &repeats.actor,
                source,
                detail,
                result: repeats.result,
                ..Entry::ok(action)
            })
            .collect();
        logged(self.store.add(&entries));
    }

    /// Removes what is too old or too much.
    pub fn purge(&self) -> Result<usize, StoreError> {
        let age_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        self.store.purge(clock::unix_ms().saturating_sub(age_ms), self.rows_max)
    }

    /// For reading.
    pub fn store(&self) -> &AuditStore {
        &self.store
    }
}

fn logged(result: Result<(), StoreError>) {
    if let Err(error) = result {
        log::error!("write the audit log: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> Entry<'_> {
        Entry { source, result: Outcome::Denied, ..Entry::ok("login.password") }
    }

    #[test]
    fn a_flood_becomes_few_entries() {
        let db = Arc::new(Db::in_memory().unwrap());
        let audit = AuditLog::new(db, Duration::from_secs(3600), 1000);
        for _ in 0..1000 {
            audit.record_repeatable(&refused("10.0.0.1"));
        }
        audit.record_repeatable(&refused("10.0.0.2"));
        let rows = |filter: &Filter| audit.store().list(filter, 5000).unwrap();
        assert_eq!(rows(&Filter::default()).len(), 2);
        audit.flush_at(Instant::now(), false);
        assert_eq!(rows(&Filter::default()).len(), 2);
        audit.flush_at(Instant::now() + limits::AUDIT_REPEAT_WINDOW, false);
        let found = rows(&Filter::default());
        let found: Vec<(&str, &str, &str)> =
            found.iter().map(|row| (row.source.as_str(), row.result.as_str(), row.detail.as_str())).collect();
        assert_eq!(found, [("10.0.0.1", "denied", "999 more"), ("10.0.0.2", "denied", ""), ("10.0.0.1", "denied", "")]);
        // The next window begins with an entry of its own.
        audit.record_repeatable(&refused("10.0.0.1"));
        assert_eq!(rows(&Filter::default()).len(), 4);
        for number in 0..limits::AUDIT_SOURCES_MAX * 3 {
            audit.record_repeatable(&refused(&format!("10.1.0.{number}")));
        }
        audit.flush(true);
        let many = rows(&Filter::default());
        assert!(many.len() <= 4 + limits::AUDIT_SOURCES_MAX + 2, "{}", many.len());
        assert!(many.iter().any(|row| row.source == "many" && row.detail.ends_with(" more")));
        assert!(lock(&audit.repeated).is_empty());
    }

    #[test]
    fn old_entries_go() {
        let db = Arc::new(Db::in_memory().unwrap());
        let audit = AuditLog::new(Arc::clone(&db), Duration::from_secs(3600), 1000);
        audit.record(&Entry::ok("old"));
        audit.record(&Entry::ok("new"));
        let old = clock::unix_ms() - 3_700_000;
        db.write(|tx| Ok(tx.execute("UPDATE audit SET at = ?1 WHERE action = 'old'", [old])?)).unwrap();
        assert_eq!(audit.purge().unwrap(), 1);
        assert_eq!(audit.store().list(&Filter::default(), 10).unwrap()[0].action, "new");
    }
}
