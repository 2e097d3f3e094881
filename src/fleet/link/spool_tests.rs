use super::*;
use crate::alert::{Level, key_of};
use serde_json::Value;
use std::fs::File;

fn event(number: i64) -> Event {
    let labels = [("check".to_owned(), "x::y".to_owned()), ("n".to_owned(), number.to_string())].into();
    let key = key_of(&labels);
    let attrs = std::collections::BTreeMap::new();
    let description = "line one\nline <two>".to_owned();
    Event { time: number, level: Level::Warning, key, labels, attrs, description, format: String::new() }
}

fn times(sendable: Option<Sendable>) -> Vec<i64> {
    let Some(sendable) = sendable else { return Vec::new() };
    let message: Value = serde_json::from_slice(&sendable.message).unwrap();
    assert_eq!(message["type"], "alert_events");
    assert_eq!(message["id"], sendable.id);
    message["payload"]["events"].as_array().unwrap().iter().map(|e| e["event_time"].as_i64().unwrap()).collect()
}

fn spool(dir: &tempfile::TempDir, events_max: usize, bytes_max: u64) -> Spool {
    Spool::open_with(&dir.path().join("spool"), events_max, bytes_max).unwrap()
}

#[test]
fn batches_keep_their_ids_through_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let first = spool(&dir, 1000, FILE_BYTES_MAX);
    for number in 0..250 {
        assert!(first.push(&event(number)));
    }
    assert_eq!(times(first.next_batch("a".into())), (0..100).collect::<Vec<_>>());
    // As after kill -9: nothing was closed in order.
    let again = spool(&dir, 1000, FILE_BYTES_MAX);
    assert_eq!((again.waiting(), again.batches()), (250, 1));
    let resent = again.batch(0).unwrap();
    assert_eq!(resent.id, "a");
    assert_eq!(times(Some(resent)), (0..100).collect::<Vec<_>>());
    assert!(again.delivered("a") && !again.delivered("a") && !again.delivered("zzz"));
    assert_eq!(times(again.next_batch("b".into())), (100..200).collect::<Vec<_>>());
    let third = spool(&dir, 1000, FILE_BYTES_MAX);
    assert_eq!((third.waiting(), third.batches()), (150, 1));
    assert!(third.delivered("b"));
    assert_eq!(times(third.next_batch("c".into())).len(), 50);
    assert!(third.next_batch("d".into()).is_none());
    assert!(third.delivered("c"));
    assert_eq!(third.waiting(), 0);
    assert_eq!(spool(&dir, 1000, FILE_BYTES_MAX).waiting(), 0);
}

#[test]
fn several_batches_may_wait_and_end_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let spool_a = spool(&dir, 1000, FILE_BYTES_MAX);
    for (number, id) in [(0, "a"), (1, "b"), (2, "c")] {
        spool_a.push(&event(number));
        assert_eq!(times(spool_a.next_batch(id.into())), [number]);
    }
    assert!(spool_a.delivered("b"));
    assert_eq!(spool_a.waiting(), 3, "the first one still holds it");
    let again = spool(&dir, 1000, FILE_BYTES_MAX);
    assert!(again.delivered("a"));
    assert_eq!(times(again.batch(0)), [2]);
    assert_eq!(again.waiting(), 1);
}

#[test]
fn torn_ends_and_damage_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let first = spool(&dir, 1000, FILE_BYTES_MAX);
    first.push(&event(1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"E{\"event_time\":2,\"broken\n\0\0\0\0\nQ 1 2 3\n");
    std::fs::write(&path, &bytes).unwrap();
    let second = spool(&dir, 1000, FILE_BYTES_MAX);
    second.push(&event(3));
    let whole = std::fs::read(&path).unwrap();
    for torn in [1, 5, 30] {
        std::fs::write(&path, [&whole[..], &whole[..torn]].concat()).unwrap();
        let third = spool(&dir, 1000, FILE_BYTES_MAX);
        assert_eq!((third.waiting(), third.dropped()), (2, 3), "the damaged are told as lost");
        third.push(&event(4));
        assert_eq!(times(third.next_batch("x".into())), [1, 3, 4]);
    }
}

#[test]
fn the_oldest_goes_when_it_is_full_and_the_hub_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let full = spool(&dir, 10, FILE_BYTES_MAX);
    for number in 0..3 {
        full.push(&event(number));
    }
    assert_eq!(times(full.next_batch("a".into())), [0, 1, 2]);
    for number in 3..15 {
        full.push(&event(number));
    }
    assert_eq!((full.waiting(), full.dropped()), (10, 5));
    let again = spool(&dir, 10, FILE_BYTES_MAX);
    assert_eq!((again.waiting(), again.dropped()), (10, 5));
    // What is under way is not dropped.
    assert_eq!(times(again.batch(0)), [0, 1, 2]);
    assert_eq!(times(again.next_batch("b".into())), [8, 9, 10, 11, 12, 13, 14]);
    again.told(5);
    assert_eq!(spool(&dir, 10, FILE_BYTES_MAX).dropped(), 0);
    // All are under way to a hub that does not ack: the oldest batch goes.
    again.push(&event(15));
    assert_eq!((again.waiting(), again.dropped(), again.batches()), (8, 3, 1));
}

#[test]
fn the_file_stays_within_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let small = spool(&dir, 100_000, 40_000);
    let mut id = 0;
    let mut told = 0;
    for number in 0..3000 {
        small.push(&event(number));
        if number % 7 == 0 {
            id += 1;
            let sendable = small.next_batch(format!("m{id}")).unwrap();
            if number % 21 == 0 {
                small.delivered(&sendable.id);
            }
        }
        if number % 100 == 0 {
            told += small.dropped();
            small.told(small.dropped());
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= 41_000);
    }
    assert!(told > 0);
    let again = spool(&dir, 100_000, 40_000);
    assert_eq!(
        (again.waiting(), again.batches(), again.dropped()),
        (small.waiting(), small.batches(), small.dropped())
    );
    let last = |spool: &Spool| times(spool.batch(spool.batches() - 1));
    assert_eq!(last(&again), last(&small));
    while let Some(sendable) = again.batch(0).or_else(|| again.next_batch("rest".into())) {
        assert!(again.delivered(&sendable.id));
    }
    assert_eq!(again.waiting(), 0);
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let failing = spool(&dir, 1000, FILE_BYTES_MAX);
    failing.push(&event(1));
    let good = {
        let mut state = lock(&failing.state);
        // Opened for reading alone: every write fails.
        std::mem::replace(&mut state.file, Arc::new(File::open(&path).unwrap()))
    };
    assert!(failing.push(&event(2)) && failing.push(&event(3)));
    assert_eq!(failing.waiting(), 3);
    assert_eq!(times(failing.next_batch("a".into())), [1]);
    assert_eq!(times(failing.next_batch("b".into())), [2, 3]);
    assert_eq!(times(failing.batch(1)), [2, 3], "sent again after a reconnect");
    failing.push(&event(4));
    lock(&failing.state).file = good;
    failing.push(&event(5));
    assert_eq!(times(failing.next_batch("c".into())), [4, 5]);
    for id in ["a", "b", "c"] {
        assert!(failing.delivered(id));
    }
    assert_eq!(failing.waiting(), 0);
}

#[test]
fn huge_events_are_cut_and_batches_stay_small() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(&dir, 1000, FILE_BYTES_MAX);
    let mut huge = event(1);
    huge.description = "x".repeat(100_000);
    assert!(spool.push(&huge));
    let message = spool.next_batch("a".into()).unwrap().message;
    assert!(message.len() < 10_000 && String::from_utf8(message).unwrap().contains("[cut]"));
    huge.labels.insert("big".to_owned(), "x".repeat(100_000));
    assert!(!spool.push(&huge), "labels are identity and cannot be cut");
    let mut large = event(2);
    large.description = "x".repeat(60_000);
    for _ in 0..10 {
        spool.push(&large);
    }
    assert_eq!(times(spool.next_batch("b".into())).len(), 3);
}
