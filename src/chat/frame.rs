//! Frames as they stand in rings, rows and sockets: unmasked WebSocket text frames (RFC 6455 section 5.2), so that the
//! same bytes serve every one of them. A *run* is any number of such frames put together.

/// Appends `payload` as one final text frame.
pub fn push_text(out: &mut Vec<u8>, payload: &[u8]) {
    push_header(out, 0x81, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the header of a final, unmasked frame with that first byte.
pub fn push_header(out: &mut Vec<u8>, first: u8, length: usize) {
    out.push(first);
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// One text frame.
pub fn text(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    push_text(&mut out, payload);
    out
}

/// The frames of a run, one after the other: (whole frame, payload). Ends at the first thing that is not a whole
/// frame, which only a damaged file can hold.
pub fn frames(run: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = run;
    std::iter::from_fn(move || {
        let (header, length): (usize, usize) = match *rest.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?)).ok()?),
            short => (2, usize::from(short)),
        };
        let end = header.checked_add(length)?;
        let whole = rest.get(..end)?;
        rest = &rest[end..];
        Some((whole, &whole[header..]))
    })
}

/// What is left of a run after its first `skip` frames.
pub fn skip_frames(run: &[u8], skip: u64) -> &[u8] {
    let mut offset = 0;
    let mut left = skip;
    for (whole, _) in frames(run) {
        if left == 0 {
            break;
        }
        offset += whole.len();
        left -= 1;
    }
    &run[offset..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_header_size_are_found_again() {
        let payloads: Vec<Vec<u8>> = [0, 1, 125, 126, 65_535, 65_536].iter().map(|&n| vec![b'a'; n]).collect();
        let mut run = Vec::new();
        for payload in &payloads {
            push_text(&mut run, payload);
        }
        let found: Vec<&[u8]> = frames(&run).map(|(_, payload)| payload).collect();
        assert_eq!(found, payloads);
        assert_eq!(frames(skip_frames(&run, 4)).count(), 2);
        assert!(skip_frames(&run, 6).is_empty());
        run.truncate(run.len() - 1);
        assert_eq!(frames(&run).count(), 5);
        assert_eq!(frames(&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).count(), 0);
    }
}
