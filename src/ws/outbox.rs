//! What waits to be written: control frames before data, both bounded, and a bell for streams that have moved.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::chat::SessionStream;
use crate::limits;

/// A control frame.
pub(super) enum Control {
    /// Whole frames as tungstenite wrote them: a pong, or the echo of a close.
    Raw(Vec<u8>),
    /// Ours: the socket ends with this code and reason.
    Close { code: u16, reason: &'static str },
}

/// Everything else.
pub(super) enum Data {
    /// A whole frame.
    Frame(Arc<[u8]>),
    /// Follow a stream in that life of it, from after that number. With a `head` (a JSON frame that goes first) the cursor
    /// of one that is followed already begins anew.
    Attach { stream: Arc<SessionStream>, life: u64, after_seq: u64, head: Option<Vec<u8>> },
}

/// The sending half, shared by whoever has something for the socket.
pub(super) struct Outbox {
    control_tx: Sender<Control>,
    /// To take the oldest pong out when the queue is full.
    control_rx: Receiver<Control>,
    /// Boxed: the slots of the queue are made with it, for every socket.
    data_tx: Sender<Box<Data>>,
    wake_tx: Sender<()>,
}

/// The write pump's half.
pub(super) struct Inbox {
    pub(super) control_rx: Receiver<Control>,
    pub(super) data_rx: Receiver<Box<Data>>,
    pub(super) wake_rx: Receiver<()>,
}

pub(super) fn outbox() -> (Outbox, Inbox) {
    let (control_tx, control_rx) = bounded(limits::WS_CONTROL_QUEUE);
    let (data_tx, data_rx) = bounded(limits::WS_DATA_QUEUE);
    let (wake_tx, wake_rx) = bounded(1);
    let outbox = Outbox { control_tx, control_rx: control_rx.clone(), data_tx, wake_tx };
    (outbox, Inbox { control_rx, data_rx, wake_rx })
}

impl Outbox {
    /// Queues a control frame, never waits: when full the newest pong wins, and a close is never lost to one.
    pub(super) fn control(&self, frame: Control) {
        let mut frame = frame;
        for _ in 0..=limits::WS_CONTROL_QUEUE {
            match self.control_tx.try_send(frame) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(refused)) => {
                    frame = refused;
                    // What is taken out is older than what goes in; a close goes in again, in place of the new frame.
                    match self.control_rx.try_recv() {
                        Ok(close @ Control::Close { .. }) => frame = close,
                        Ok(Control::Raw(_)) | Err(_) => {}
                    }
                }
            }
        }
    }

    /// Queues data; waits while the queue is full (the reading pump: a client that does not read is not read either).
    /// False when the write pump is gone.
    pub(super) fn data(&self, data: Data) -> bool {
        self.data_tx.send(Box::new(data)).is_ok()
    }

    /// Queues a frame if there is room; false when not.
    pub(super) fn try_data(&self, frame: Arc<[u8]>) -> bool {
        self.data_tx.try_send(Box::new(Data::Frame(frame))).is_ok()
    }

    /// Rings the bell; one that is already ringing is enough.
    pub(super) fn wake(&self) {
        let _ = self.wake_tx.try_send(());
    }
}

/// tungstenite's writing half: what it wants to write is queued, never written directly.
pub(super) struct ControlWriter(pub(super) Arc<super::conn::Conn>);

impl io::Write for ControlWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Control frames are short: one byte of length (RFC 6455 section 5.5).
        let mut rest = bytes;
        while let [_, length, ..] = rest {
            let end = (2 + usize::from(length & 0x7f)).min(rest.len());
            self.0.outbox().control(Control::Raw(rest[..end].to_vec()));
            rest = &rest[end..];
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_pong_wins_and_a_close_stays() {
        let (outbox, inbox) = outbox();
        outbox.control(Control::Close { code: 1001, reason: "" });
        for number in 0..10 {
            outbox.control(Control::Raw(vec![0x8a, 1, number]));
        }
        let mut closes = 0;
        let mut pongs = Vec::new();
        for frame in inbox.control_rx.try_iter() {
            match frame {
                Control::Close { .. } => closes += 1,
                Control::Raw(bytes) => pongs.push(bytes[2]),
            }
        }
        assert_eq!(closes, 1);
        assert!(pongs.len() == 3 && pongs.contains(&8), "{pongs:?}");
    }
}
