//! JSON as the contract spells it (http-api.md section 0): `<`, `>`, `&`, U+2028 and U+2029 are escaped, and numbers
//! take their shortest form (`100`, `0.3`, `1e-7`, `1e+21`).

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Appends a quoted, escaped string.
pub fn push_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// A name inside an error text (`q(x)` of contract http-api section 0): quoted, with what cannot be printed escaped.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x7f' if c.is_ascii_control() => out.extend(format!("\\x{:02x}", u32::from(c)).chars()),
            '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}' => {
                out.extend(format!("\\u{:04x}", u32::from(c)).chars());
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Appends a number.
pub fn push_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a float in its shortest form; what is not a number becomes `0`.
pub fn push_f64(out: &mut Vec<u8>, number: f64) {
    if !number.is_finite() || number == 0.0 {
        out.push(b'0');
        return;
    }
    let magnitude = number.abs();
    let text = if (1e-6..1e21).contains(&magnitude) {
        format!("{number}")
    } else {
        let text = format!("{number:e}");
        if text.contains("e-") { text } else { text.replace('e', "e+") }
    };
    out.extend_from_slice(text.as_bytes());
}

/// Any value as JSON text, without a line end.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    // Our wire types have string keys and no failing serialisers, and a Vec takes every write.
    let result = value.serialize(&mut Serializer::with_formatter(&mut out, ContractFormatter(CompactFormatter)));
    debug_assert!(result.is_ok(), "wire types serialise");
    out
}

fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            b'&' => b"\\u0026",
            0xE2 if bytes[index..].starts_with(b"\xE2\x80\xA8") => b"\\u2028",
            0xE2 if bytes[index..].starts_with(b"\xE2\x80\xA9") => b"\\u2029",
            0x00..=0x1f => {
                out.extend_from_slice(&bytes[copied..index]);
                out.extend_from_slice(b"\\u00");
                out.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
                out.push(b"0123456789abcdef"[usize::from(byte & 15)]);
                copied = index + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..index]);
        out.extend_from_slice(escape);
        copied = index + if byte == 0xE2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[copied..]);
}

struct ContractFormatter(CompactFormatter);

impl Formatter for ContractFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let mut out = Vec::new();
        push_f64(&mut out, value);
        writer.write_all(&out)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let special = |byte: u8| matches!(byte, b'<' | b'>' | b'&' | 0xE2);
        if !fragment.bytes().any(special) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut out = Vec::with_capacity(fragment.len() + 16);
        push_escaped(&mut out, fragment);
        writer.write_all(&out)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_error_texts_are_quoted() {
        let cases = [
            ("plain é'", r#""plain é'""#),
            ("a\"b\\c\n\r\t\u{7}\u{7f}", r#""a\"b\\c\n\r\t\x07\x7f""#),
            ("\u{2028}\u{feff}", r#""\u2028\ufeff""#),
        ];
        for (input, expected) in cases {
            assert_eq!(quoted(input), expected);
        }
    }

    #[test]
    fn strings_are_escaped_alike_by_both_writers() {
        let cases = [
            ("plain", r#""plain""#),
            ("<b>&\u{2028}\u{2029}\u{20ac}", r#""\u003cb\u003e\u0026\u2028\u2029€""#),
            ("a\"b\\c\n\r\t\u{1}", r#""a\"b\\c\n\r\t\u0001""#),
            ("", r#""""#),
        ];
        for (input, expected) in cases {
            let mut out = Vec::new();
            push_str(&mut out, input);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert_eq!(String::from_utf8(to_vec(input)).unwrap(), expected);
            assert_eq!(serde_json::from_str::<String>(expected).unwrap(), input);
        }
    }

    #[test]
    fn numbers_take_their_shortest_form() {
        let cases =
            [(100.0, "100"), (0.3, "0.3"), (1e-7, "1e-7"), (1e21, "1e+21"), (0.000_001, "0.000001"), (-2.5, "-2.5")];
        for (input, expected) in cases {
            assert_eq!(String::from_utf8(to_vec(&input)).unwrap(), expected);
        }
        let mut out = Vec::new();
        push_u64(&mut out, u64::MAX);
        out.push(b' ');
        push_u64(&mut out, 0);
        assert_eq!(out, b"18446744073709551615 0");
    }
}
