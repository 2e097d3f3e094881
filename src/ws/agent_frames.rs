//! Frames of a machine, read one by one (RFC 6455 section 5). Its own reader and not tungstenite's, whose buffer keeps
//! the size of the largest message: a machine that once sent 16 MiB would cost them for ever.

use std::io::{self, Read};

use crate::limits;

/// What one read takes from the socket for headers and short messages.
const CHUNK_BYTES: usize = 1024;
/// How much is believed of an announced length at once.
const STEP_BYTES: usize = 64 * 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole message is in [`FrameReader::message`].
    Message,
    Ping(Vec<u8>),
    Pong,
    /// The code, if there is one, and its reason.
    Close(Option<u16>, String),
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The peer is gone, or silent for longer than the socket's time limit.
    Ended(io::Error),
    TooLong,
    Protocol(&'static str),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Ended(error)
    }
}

/// The reading half of a connection.
pub(super) struct FrameReader {
    /// Read and not used yet, from `start` on.
    chunk: Vec<u8>,
    start: usize,
    message: Vec<u8>,
    /// Between the first and the last frame of a message.
    is_fragmented: bool,
}

impl FrameReader {
    /// A reader that begins with what came behind the request.
    pub(super) fn new(early: Vec<u8>) -> Self {
        Self { chunk: early, start: 0, message: Vec::new(), is_fragmented: false }
    }

    /// The message that has just come.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Gives back the room of a large message.
    pub(super) fn recycle(&mut self) {
        self.message.clear();
        if self.message.capacity() > limits::AGENT_BUFFER_KEPT_BYTES {
            self.message = Vec::new();
        }
    }

    /// The next message of at most `bytes_max`, or control frame. Blocks.
    pub(super) fn next(&mut self, source: &mut impl Read, bytes_max: usize) -> Result<Incoming, ReadError> {
        loop {
            let [first, second] = self.array::<2>(source)?;
            let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
            if first & 0x70 != 0 {
                return Err(ReadError::Protocol("reserved bits are set"));
            }
            if second & 0x80 == 0 {
                return Err(ReadError::Protocol("frames to the hub are masked"));
            }
            let length = match second & 0x7f {
                126 => u64::from(u16::from_be_bytes(self.array::<2>(source)?)),
                127 => u64::from_be_bytes(self.array::<8>(source)?),
                short => u64::from(short),
            };
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let mask = self.array::<4>(source)?;
            if opcode >= 8 {
                if length > 125 || !is_last {
                    return Err(ReadError::Protocol("a control frame is short and whole"));
                }
                let mut payload = Vec::new();
                self.payload(source, &mut payload, length, mask)?;
                return match opcode {
                    8 => Ok(close(&payload)),
                    9 => Ok(Incoming::Ping(payload)),
                    10 => Ok(Incoming::Pong),
                    _ => Err(ReadError::Protocol("unknown opcode")),
                };
            }
            match (opcode, self.is_fragmented) {
                (0, true) | (1 | 2, false) => {}
                (0..=2, _) => return Err(ReadError::Protocol("fragments out of order")),
                _ => return Err(ReadError::Protocol("unknown opcode")),
            }
            if opcode != 0 {
                self.recycle();
            }
            if length > bytes_max.saturating_sub(self.message.len()) {
                return Err(ReadError::TooLong);
            }
            let mut message = std::mem::take(&mut self.message);
            self.payload(source, &mut message, length, mask)?;
            self.message = message;
            self.is_fragmented = !is_last;
            if is_last {
                return Ok(Incoming::Message);
            }
        }
    }

    /// Appends an unmasked payload; room is made as it comes.
    fn payload(
        &mut self,
        source: &mut impl Read,
        out: &mut Vec<u8>,
        length: usize,
        mask: [u8; 4],
    ) -> Result<(), ReadError> {
        let begin = out.len();
        let here = length.min(self.chunk.len() - self.start);
        out.extend_from_slice(&self.chunk[self.start..self.start + here]);
        self.start += here;
        let mut left = length - here;
        while left > 0 {
            let step = left.min(STEP_BYTES);
            out.reserve_exact(step);
            let taken = (&mut *source).take(step as u64).read_to_end(out)?;
            if taken < step {
                return Err(ReadError::Ended(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= step;
        }
        for (byte, key) in out[begin..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, source: &mut impl Read) -> Result<[u8; N], ReadError> {
        while self.chunk.len() - self.start < N {
            self.chunk.drain(..self.start);
            self.start = 0;
            let known = self.chunk.len();
            if self.chunk.capacity() > 2 * CHUNK_BYTES {
                self.chunk.shrink_to_fit();
            }
            self.chunk.reserve_exact(CHUNK_BYTES);
            self.chunk.resize(known + CHUNK_BYTES, 0);
            let read = source.read(&mut self.chunk[known..]);
            self.chunk.truncate(known + read.as_ref().map_or(0, |count| *count));
            match read {
                Ok(0) => return Err(ReadError::Ended(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.chunk[self.start..self.start + N]);
        self.start += N;
        Ok(bytes)
    }
}

fn close(payload: &[u8]) -> Incoming {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => {
            Incoming::Close(Some(u16::from_be_bytes(*code)), String::from_utf8_lossy(reason).into_owned())
        }
        None => Incoming::Close(None, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [7, 0, 255, 3];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::chat::frame::push_header(&mut out, first, payload.len());
        out[1] |= 0x80;
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// Gives its bytes a few at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.1).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = vec![b'x'; 70_000];
        let mut bytes = frame(0x81, b"one");
        bytes.extend(frame(0x01, b"tw"));
        bytes.extend(frame(0x89, b"are you there"));
        bytes.extend(frame(0x80, b"o"));
        bytes.extend(frame(0x82, &long));
        bytes.extend(frame(0x8a, b""));
        bytes.extend(frame(0x81, &vec![b'y'; 300]));
        bytes.extend(frame(0x88, &[&1000_u16.to_be_bytes()[..], b"agent stopping"].concat()));
        for step in [1, 3, 1000, 1_000_000] {
            for early in [0, 1, 9, 2000] {
                let mut source = Slow(bytes[early..].to_vec(), step);
                let mut reader = FrameReader::new(bytes[..early].to_vec());
                let mut next = || {
                    let incoming = reader.next(&mut source, 70_000).unwrap();
                    let message = reader.message().to_vec();
                    if incoming == Incoming::Message {
                        reader.recycle();
                    }
                    (incoming, message)
                };
                assert_eq!(next(), (Incoming::Message, b"one".to_vec()));
                assert_eq!(next().0, Incoming::Ping(b"are you there".to_vec()));
                assert_eq!(next(), (Incoming::Message, b"two".to_vec()));
                assert_eq!(next(), (Incoming::Message, long.clone()));
                assert_eq!(next().0, Incoming::Pong);
                assert_eq!(next().1.len(), 300);
                assert_eq!(next().0, Incoming::Close(Some(1000), "agent stopping".to_owned()));
                assert!(matches!(reader.next(&mut source, 10), Err(ReadError::Ended(_))));
                assert!(reader.message.capacity() <= limits::AGENT_BUFFER_KEPT_BYTES);
                assert!(reader.chunk.capacity() <= 2 * CHUNK_BYTES, "{}", reader.chunk.capacity());
            }
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_connection() {
        let check = |bytes: &[u8], wanted: &str| {
            let mut reader = FrameReader::new(Vec::new());
            let mut source = Slow(bytes.to_vec(), 1000);
            let error = loop {
                match reader.next(&mut source, 1000) {
                    Ok(_) => reader.recycle(),
                    Err(error) => break format!("{error:?}"),
                }
            };
            assert!(error.contains(wanted), "{error} for {bytes:?}");
        };
        check(&frame(0xc1, b"x"), "reserved");
        check(&[0x81, 1, b'x'], "masked");
        check(&frame(0x80, b"x"), "out of order");
        check(&[frame(0x01, b"x"), frame(0x81, b"x")].concat(), "out of order");
        check(&frame(0x83, b"x"), "opcode");
        check(&frame(0x8b, b""), "opcode");
        check(&frame(0x89, &[0; 126]), "control");
        check(&frame(0x09, b""), "control");
        check(&frame(0x81, &[b'x'; 1001]), "TooLong");
        check(&[frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 600])].concat(), "TooLong");
        check(&[0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0], "TooLong");
        check(&frame(0x81, b"whole")[..8], "Ended");
    }
}
