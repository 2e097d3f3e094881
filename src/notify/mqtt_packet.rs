//! Packets of MQTT 3.1.1 (OASIS standard, section 3): those that a publisher sends and gets. Pure.

/// What a broker answers a publisher is shorter than this.
const BODY_BYTES_MAX: usize = 64;

/// What connects a publisher.
pub(super) struct Connect<'a> {
    pub(super) client_id: &'a str,
    pub(super) keep_alive_s: u16,
    pub(super) user: Option<(&'a str, &'a str)>,
    /// Topic and payload, retained: what the broker says when we are gone without a word.
    pub(super) will: (&'a str, &'a str),
}

/// What a broker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The return code; 0 is yes.
    Connected(u8),
    /// The packet with that id was taken.
    Taken(u16),
    Pong,
}

/// CONNECT (3.1), with a clean session: nothing is kept for a publisher.
pub(super) fn connect(connect: &Connect<'_>) -> Vec<u8> {
    // Clean session, will, will QoS 1, will retained.
    let mut flags = 0b0010_1110;
    let mut payload = Vec::new();
    push(&mut payload, connect.client_id.as_bytes());
    push(&mut payload, connect.will.0.as_bytes());
    push(&mut payload, connect.will.1.as_bytes());
    if let Some((user, password)) = connect.user {
        flags |= 0b1000_0000;
        push(&mut payload, user.as_bytes());
        if !password.is_empty() {
            flags |= 0b0100_0000;
            push(&mut payload, password.as_bytes());
        }
    }
    let mut body = Vec::new();
    push(&mut body, b"MQTT");
    body.extend([4, flags]);
    body.extend(connect.keep_alive_s.to_be_bytes());
    body.extend(payload);
    packet(0x10, &body)
}

/// PUBLISH with QoS 1 (3.3).
pub(super) fn publish(topic: &str, payload: &[u8], retain: bool, id: u16) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    push(&mut body, topic.as_bytes());
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(0x32 | u8::from(retain), &body)
}

/// PINGREQ (3.12).
pub(super) const PING: [u8; 2] = [0xc0, 0];
/// DISCONNECT (3.14): the broker forgets the will.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Takes the first packet out of what was read: None while it is not whole, an error when it is none that a publisher
/// can get.
pub(super) fn take(buffer: &mut Vec<u8>) -> Result<Option<Answer>, &'static str> {
    let Some((&kind, rest)) = buffer.split_first() else { return Ok(None) };
    let mut len = 0_usize;
    let mut len_bytes = 0;
    loop {
        let Some(&byte) = rest.get(len_bytes) else { return Ok(None) };
        len |= usize::from(byte & 0x7f) << (7 * len_bytes);
        len_bytes += 1;
        if len > BODY_BYTES_MAX || len_bytes > 4 {
            return Err("an answer is too long");
        }
        if byte & 0x80 == 0 {
            break;
        }
    }
    let Some(body) = rest.get(len_bytes..len_bytes + len) else { return Ok(None) };
    let answer = match (kind, body) {
        (0x20, [_, code]) => Answer::Connected(*code),
        (0x40, [high, low]) => Answer::Taken(u16::from_be_bytes([*high, *low])),
        (0xd0, []) => Answer::Pong,
        _ => return Err("an answer is not one for a publisher"),
    };
    buffer.drain(..1 + len_bytes + len);
    Ok(Some(answer))
}

/// A field: length and bytes. Fields of ours are far shorter than the 64 KiB that fit.
fn push(out: &mut Vec<u8>, field: &[u8]) {
    let field = &field[..field.len().min(usize::from(u16::MAX))];
    out.extend(u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(field);
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or(0);
        left >>= 7;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_standard() {
        let asked = Connect { client_id: "h", keep_alive_s: 30, user: Some(("u", "p")), will: ("t", "off") };
        assert_eq!(
            connect(&asked),
            b"\x10\x1b\x00\x04MQTT\x04\xee\x00\x1e\x00\x01h\x00\x01t\x00\x03off\x00\x01u\x00\x01p"
        );
        assert_eq!(publish("a/b", b"x", true, 7), b"\x33\x08\x00\x03a/b\x00\x07x");
        let long = publish("t", &[b'x'; 200], false, 1);
        assert_eq!(&long[..4], b"\x32\xcd\x01\x00");
        assert_eq!(long.len(), 3 + 205);
    }

    #[test]
    fn answers_are_taken_whole_and_strange_ones_refused() {
        let mut buffer = b"\x20\x02\x00\x05\x40\x02\x01\x02\xd0\x00\x40\x02\x00".to_vec();
        assert_eq!(take(&mut buffer), Ok(Some(Answer::Connected(5))));
        assert_eq!(take(&mut buffer), Ok(Some(Answer::Taken(0x102))));
        assert_eq!(take(&mut buffer), Ok(Some(Answer::Pong)));
        assert_eq!(take(&mut buffer), Ok(None));
        assert_eq!(buffer, b"\x40\x02\x00");
        for bad in
            [&b"HTTP/1.1 400"[..], b"\x30\x03\x00\x01a", b"\x20\x01\x00", b"\x40\xff\xff\xff\xff\x01", b"\x20\x80"]
        {
            let mut buffer = bad.to_vec();
            let taken = take(&mut buffer);
            assert!(taken.is_err() || (bad.len() == 2 && taken == Ok(None)), "{bad:?} {taken:?}");
        }
    }
}
