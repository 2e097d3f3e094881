//! From bytes to text: the charset that the server, the page or the bytes themselves tell.

use super::entities::latin1;
use super::html::{Token, Tokens, attribute};

/// A page says its charset early (HTML 4.2.5.4).
const META_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charset {
    Utf8,
    /// ISO 8859-1 and what is meant by it, windows-1252.
    Latin1,
    /// ISO 8859-15: latin-1 with the euro sign.
    Latin9,
    Utf16 {
        big_endian: bool,
    },
}

/// Decodes a body; `content_type` is the header of the same name. What cannot be decoded becomes U+FFFD.
pub(super) fn decode(bytes: &[u8], content_type: &str, is_html: bool) -> String {
    let told = of_marks(bytes)
        .or_else(|| parameter(content_type).and_then(|label| of_label(&label)))
        .or_else(|| is_html.then(|| of_meta(bytes)).flatten());
    match told {
        Some(Charset::Utf8) => utf8(bytes),
        Some(Charset::Utf16 { big_endian }) => utf16(bytes, big_endian),
        Some(Charset::Latin9) => bytes.iter().map(|&byte| if byte == 0xa4 { '€' } else { latin1(byte) }).collect(),
        Some(Charset::Latin1) => bytes.iter().copied().map(latin1).collect(),
        // Nothing said: bytes that are UTF-8 are hardly anything else. A character may be cut at the end.
        None => match std::str::from_utf8(bytes) {
            Err(error) if error.error_len().is_some() => bytes.iter().copied().map(latin1).collect(),
            _ => utf8(bytes),
        },
    }
}

fn of_marks(bytes: &[u8]) -> Option<Charset> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => Some(Charset::Utf8),
        [0xfe, 0xff, ..] => Some(Charset::Utf16 { big_endian: true }),
        [0xff, 0xfe, ..] => Some(Charset::Utf16 { big_endian: false }),
        _ => None,
    }
}

/// `charset=...` of a content type.
fn parameter(content_type: &str) -> Option<String> {
    let lower = content_type.to_ascii_lowercase();
    let (_, rest) = lower.split_once("charset=")?;
    let label = rest.trim_start_matches(['"', '\'']).split(['"', '\'', ';', ' ']).next()?;
    Some(label.to_owned())
}

fn of_label(label: &str) -> Option<Charset> {
    match label.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" => Some(Charset::Utf8),
        "iso-8859-1" | "latin1" | "latin-1" | "windows-1252" | "cp1252" | "us-ascii" | "ascii" => Some(Charset::Latin1),
        "iso-8859-15" | "latin9" => Some(Charset::Latin9),
        "utf-16" | "utf-16le" => Some(Charset::Utf16 { big_endian: false }),
        "utf-16be" => Some(Charset::Utf16 { big_endian: true }),
        _ => None,
    }
}

fn of_meta(bytes: &[u8]) -> Option<Charset> {
    let head: String = bytes.iter().take(META_BYTES).copied().map(latin1).collect();
    Tokens::new(&head).find_map(|token| match token {
        Token::Open(name, attributes) if name == "meta" => attribute(attributes, "charset")
            .or_else(|| attribute(attributes, "content").and_then(|content| parameter(&content)))
            .and_then(|label| of_label(label.trim()))
            // A page whose letters could be read as ASCII is not UTF-16, whatever it says.
            .map(|charset| if matches!(charset, Charset::Utf16 { .. }) { Charset::Utf8 } else { charset }),
        _ => None,
    })
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).into_owned()
}

fn utf16(bytes: &[u8], big_endian: bool) -> String {
    let read = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
    let unit = |pair: &[u8]| read([pair[0], pair[1]]);
    let text = char::decode_utf16(bytes.chunks_exact(2).map(unit)).map(|unit| unit.unwrap_or('\u{fffd}'));
    text.filter(|c| *c != '\u{feff}').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_text() {
        let html = |bytes: &[u8], content_type: &str| decode(bytes, content_type, true);
        assert_eq!(html("Köln".as_bytes(), "text/html"), "Köln");
        assert_eq!(html(b"K\xf6ln \x80", "text/html"), "Köln €");
        assert_eq!(html(b"K\xf6ln", "text/html; charset=ISO-8859-1"), "Köln");
        assert_eq!(html(b"K\xf6ln", "text/html; Charset=\"latin1\"; x=y"), "Köln");
        assert_eq!(html(b"5 \xa4", "text/plain; charset=iso-8859-15"), "5 €");
        assert_eq!(html(b"<meta charset=iso-8859-1>\xc3\xa4", ""), "<meta charset=iso-8859-1>Ã¤");
        let old = b"<meta http-equiv=Content-Type content='text/html; charset=windows-1252'>\xc3\xa4";
        assert!(html(old, "").ends_with("Ã¤"));
        assert!(html(old, "text/html;charset=utf-8").ends_with('ä'), "the server knows better");
        assert_eq!(html(b"<meta charset=utf-8>K\xf6ln", ""), "<meta charset=utf-8>K\u{fffd}ln");
        assert_eq!(html(b"\xef\xbb\xbfa", "text/html; charset=latin1"), "a");
        assert_eq!(html(b"\xff\xfea\0b\0", ""), "ab");
        assert_eq!(html(b"\xfe\xff\0a\0b\0", ""), "ab");
        assert_eq!(html(b"a\0b\0", "text/html; charset=utf-16le"), "ab");
        assert_eq!(html("aä".as_bytes().split_last().unwrap().1, ""), "a\u{fffd}", "cut in a character");
        assert_eq!(html(b"a", "text/html; charset=klingon"), "a");
        assert_eq!(html(b"", ""), "");
    }
}
