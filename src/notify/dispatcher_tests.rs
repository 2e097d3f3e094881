//! Channels that come and go while notices and tests are on their way.

use std::path::Path;
use std::sync::{OnceLock, Weak};

use serde_json::json;

use super::super::situation::MachineState;
use super::*;
use crate::config::{Env, notify_channels};
use crate::rt::Stopper;
use crate::store::{Db, NoticeStore};

struct Nothing;

impl Situation for Nothing {
    fn machines(&self) -> Option<Vec<MachineState>> {
        None
    }

    fn is_unattended(&self, _notice: &Notice) -> bool {
        true
    }
}

/// Rows of a database; the channels of the dispatcher go just before rows are added.
struct Racing {
    store: NoticeStore,
    dispatcher: OnceLock<Weak<Dispatcher>>,
}

impl Queue for Racing {
    fn add(&self, new: &[NewNotice]) -> Result<(), StoreError> {
        if let Some(dispatcher) = self.dispatcher.get().and_then(Weak::upgrade) {
            put(&dispatcher, &[], &[]);
        }
        self.store.add(new)
    }

    fn due(&self, _channel: &str, _now: i64, _rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        Ok(Vec::new()) // nobody is in a hurry
    }

    fn next_at(&self, _channel: &str) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    fn delete(&self, ids: &[i64]) -> Result<usize, StoreError> {
        self.store.delete(ids)
    }

    fn mark(&self, ids: &[i64], state: &str, next_at: i64, error: &str) -> Result<(), StoreError> {
        self.store.mark(ids, state, next_at, error)
    }

    fn told(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.store.told(ids)
    }

    fn of_keys(&self, channel: &str, keys: &[String]) -> Result<Vec<NoticeRow>, StoreError> {
        self.store.of_keys(channel, keys)
    }

    fn list(&self, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        self.store.list(rows_max)
    }

    fn keep_channels(&self, running: &[&str], known: &[&str]) -> Result<(), StoreError> {
        self.store.keep_channels(running, known)
    }
}

fn put(dispatcher: &Dispatcher, running: &[ChannelConfig], known: &[&str]) {
    let known = known.iter().map(|name| (*name).to_owned()).collect();
    dispatcher.put_in_force(dispatcher.prepare(running, known, None).unwrap()).unwrap();
}

fn console() -> Vec<ChannelConfig> {
    let tables = json!({"console": {}});
    notify_channels(tables.as_object().unwrap(), &Env::default(), Path::new("/nowhere")).unwrap()
}

fn start(queue: &Arc<Racing>, stop: &Stop) -> Arc<Dispatcher> {
    let setup = Setup {
        channels: console(),
        known: vec!["console".to_owned()],
        queue: Arc::clone(queue) as Arc<dyn Queue>,
        situation: Arc::new(Nothing),
        timezone: String::new(),
        external_url: None,
        secret: None,
        topic: HUB_TOPIC.to_owned(),
    };
    Arc::new(Dispatcher::start(setup, stop).unwrap())
}

#[test]
fn channels_that_go_leave_nothing_that_waits() {
    let store = NoticeStore::new(Arc::new(Db::in_memory().unwrap()));
    let queue = Arc::new(Racing { store, dispatcher: OnceLock::new() });
    let (stopper, stop) = Stopper::new();
    let dispatcher = start(&queue, &stop);
    let firing =
        |key: &str| Notice { kind: Kind::Firing, level: Level::Critical, dedup: key.into(), ..Notice::default() };
    let states = || queue.list(9).unwrap().into_iter().map(|row| row.state).collect::<Vec<_>>();
    assert!(dispatcher.notify(&firing("alert:1")));
    assert_eq!(states(), ["waiting"]);
    let told = queue.list(1).unwrap()[0].clone();
    queue.told(&[told.id]).unwrap();
    let is_told = || !queue.of_keys("console", std::slice::from_ref(&told.dedup)).unwrap().is_empty();
    // Switched off, and on again: the end can be told.
    assert!(dispatcher.notify(&firing("alert:2")));
    put(&dispatcher, &[], &["console"]);
    assert_eq!((states(), is_told()), (vec!["failed".to_owned()], true));
    put(&dispatcher, &console(), &["console"]);
    assert!(is_told());
    // Gone between the look for channels and the row: the row does not wait for ever.
    queue.dispatcher.set(Arc::downgrade(&dispatcher)).unwrap();
    dispatcher.notify(&firing("alert:3"));
    assert_eq!((states(), is_told()), (vec!["failed".to_owned(); 2], false));
    // A test of what is not there is answered.
    let (said_tx, said_rx) = bounded(1);
    dispatcher.test("console", Box::new(move |result| said_tx.send(result.unwrap_err()).unwrap()));
    let error = said_rx.recv().unwrap();
    assert!(!error.was_tried && error.text.contains("just changed"), "{}", error.text);
    drop(stopper);
    assert!(dispatcher.stop(Duration::from_secs(60)).is_empty());
}
