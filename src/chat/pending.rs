//! Frames on their way into the log: how they pile up, and how they are cut into runs.

use std::sync::Arc;

use crate::chat::event::ChatEvent;
use crate::chat::frame;
use crate::limits;
use crate::store::log::Run;

/// Appends an event as one frame.
pub(super) fn push_event(out: &mut Vec<u8>, event: &ChatEvent, session_id: &str, seq: u64, prev_seq: Option<u64>) {
    // Room for the largest header; closed up when the payload turns out to need a smaller one.
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    event.encode(out, session_id, seq, prev_seq);
    let length = out.len() - start - 4;
    let mut header = Vec::with_capacity(10);
    frame::push_header(&mut header, 0x81, length);
    if header.len() == 4 {
        out[start..start + 4].copy_from_slice(&header);
    } else {
        out.splice(start..start + 4, header);
    }
}

/// Cuts frames into runs of about [`limits::RUN_BYTES_MAX`].
pub(super) fn cut_runs(bytes: Vec<u8>, first_seq: u64) -> Vec<Arc<Run>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut runs = Vec::with_capacity(bytes.len() / limits::RUN_BYTES_MAX + 1);
    let (mut start, mut end, mut run_first, mut seq) = (0, 0, first_seq, first_seq);
    for (whole, _) in frame::frames(&bytes) {
        if end > start && end - start + whole.len() > limits::RUN_BYTES_MAX {
            runs.push(Arc::new(Run { first_seq: run_first, last_seq: seq - 1, frames: bytes[start..end].into() }));
            (start, run_first) = (end, seq);
        }
        end += whole.len();
        seq += 1;
    }
    let frames: Box<[u8]> = if start == 0 { bytes.into_boxed_slice() } else { bytes[start..end].into() };
    runs.push(Arc::new(Run { first_seq: run_first, last_seq: seq - 1, frames }));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_get_the_header_that_fits() {
        for size in [0, 10, 60, 70, 200, 65_000, 70_000] {
            let mut out = b"before".to_vec();
            let event = ChatEvent::ContentDelta { text: "x".repeat(size) };
            push_event(&mut out, &event, "s", 1, None);
            let mut expected = Vec::new();
            event.encode(&mut expected, "s", 1, None);
            let found: Vec<&[u8]> = frame::frames(&out[6..]).map(|(_, payload)| payload).collect();
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn pending_frames_are_cut_into_runs_without_a_hole() {
        let mut bytes = Vec::new();
        for seq in 5..205 {
            push_event(&mut bytes, &ChatEvent::ContentDelta { text: "y".repeat(1000) }, "s", seq, None);
        }
        let runs = cut_runs(bytes.clone(), 5);
        assert!(runs.len() > 5);
        let mut next = 5;
        let mut joined = Vec::new();
        for run in &runs {
            assert_eq!(run.first_seq, next);
            assert!(run.frames.len() <= limits::RUN_BYTES_MAX);
            assert_eq!(frame::frames(&run.frames).count() as u64, run.last_seq - run.first_seq + 1);
            next = run.last_seq + 1;
            joined.extend_from_slice(&run.frames);
        }
        assert_eq!(next, 205);
        assert_eq!(joined, bytes);
        assert!(cut_runs(Vec::new(), 1).is_empty());
    }
}
