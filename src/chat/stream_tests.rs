//! What a stream shows, and when.

use std::time::Duration;

use crossbeam_channel::bounded;

use super::*;
use crate::chat::frame;
use crate::store::{Db, EventLog};

fn run(first: u64, last: u64) -> Arc<Run> {
    let mut frames = Vec::new();
    for seq in first..=last {
        frame::push_text(&mut frames, seq.to_string().as_bytes());
    }
    Arc::new(Run { first_seq: first, last_seq: last, frames: frames.into() })
}

fn shown(stream: &SessionStream, after_seq: u64) -> Option<u64> {
    match stream.read(after_seq, 1 << 20).unwrap() {
        Chunk::Frames { last_seq, .. } => Some(last_seq),
        Chunk::UpToDate | Chunk::Lost { .. } => None,
    }
}

/// A client saw frames of a run in the moment between ring and `committed`, was cut, resumed, and got them twice.
#[test]
fn nobody_sees_a_number_before_it_counts_as_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, epoch) = EventLog::open(&dir.path().join("events.db")).unwrap();
    let (recorder_tx, _recorder_rx) = bounded(8);
    let streams = Arc::new(Streams {
        replay: ReplayStore::new(Duration::from_secs(60)),
        log: log.reader(),
        epoch,
        boot_id: "boot".to_owned(),
        turns: Arc::new(TurnStore::new(Arc::new(Db::in_memory().unwrap()))),
        recorder_tx,
        commits: AtomicU64::new(0),
    });
    let stream = streams.open("s").unwrap();
    stream.publish(&[run(1, 3)]);
    // The moment in the middle of publishing the next run.
    streams.replay.append("s", &run(4, 6));
    assert_eq!((stream.last_seq(), shown(&stream, 0), shown(&stream, 3)), (3, Some(3), None));
    stream.publish(&[run(7, 9)]);
    assert_eq!((stream.last_seq(), shown(&stream, 2), shown(&stream, 9)), (9, Some(9), None));
}
