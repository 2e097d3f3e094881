//! A message as mail spells it (RFC 5322, 2045, 2047). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Encoded words are at most 75 characters, lines of them 76 (RFC 2047 2): these become 64, behind `Subject: ` too.
const WORD_BYTES_MAX: usize = 39;
/// Longest line of base64 (RFC 2045 6.8).
const LINE_CHARS: usize = 76;
/// Longer subjects are for the body.
const SUBJECT_BYTES_MAX: usize = 250;

/// What a mail says.
pub(super) struct Mail<'a> {
    /// As configured: an address, or `Name <address>`.
    pub(super) from: &'a str,
    pub(super) to: &'a [String],
    pub(super) subject: &'a str,
    pub(super) text: &'a str,
    /// Milliseconds since 1970.
    pub(super) now_ms: i64,
    /// The same for all attempts to send the same notice, so that servers and readers know a second copy.
    pub(super) id: &'a str,
    pub(super) zone: &'a TimeZone,
    pub(super) is_urgent: bool,
}

impl Mail<'_> {
    /// Headers and body, lines ended by CRLF. The body is base64: no line of it begins with a dot or is too long.
    pub(super) fn text(&self) -> String {
        let to: Vec<String> = self.to.iter().map(|to| mailbox(to)).collect();
        let date =
            Timestamp::from_millisecond(self.now_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.zone.clone());
        let domain = bare_address(self.from).rsplit('@').next().unwrap_or("holt");
        let mut out = String::new();
        let mut header = |name: &str, value: &str| out.extend([name, ": ", value, "\r\n"]);
        header("Date", &date.strftime("%a, %d %b %Y %H:%M:%S %z").to_string());
        header("From", &mailbox(self.from));
        header("To", &to.join(",\r\n "));
        header("Subject", &words(crate::rt::text::cut(self.subject, SUBJECT_BYTES_MAX)));
        header("Message-ID", &format!("<{}@{domain}>", self.id));
        // Nobody's holiday note is wanted (RFC 3834 5).
        header("Auto-Submitted", "auto-generated");
        if self.is_urgent {
            header("Importance", "high");
            header("X-Priority", "1");
        }
        header("MIME-Version", "1.0");
        header("Content-Type", "text/plain; charset=utf-8");
        header("Content-Transfer-Encoding", "base64");
        out.push_str("\r\n");
        let encoded = STANDARD.encode(self.text.replace("\r\n", "\n").replace('\n', "\r\n"));
        for (index, c) in encoded.chars().enumerate() {
            if index > 0 && index % LINE_CHARS == 0 {
                out.push_str("\r\n");
            }
            out.push(c);
        }
        out.push_str("\r\n");
        out
    }
}

/// The address of `Name <address>`.
pub(super) fn bare_address(mailbox: &str) -> &str {
    mailbox.split_once('<').map_or(mailbox, |(_, rest)| rest.trim_end_matches('>')).trim()
}

fn mailbox(text: &str) -> String {
    let name = text.split_once('<').map_or("", |(name, _)| name.trim());
    let address = bare_address(text);
    if name.is_empty() { address.to_owned() } else { format!("{} <{address}>", words(name)) }
}

/// Header text: as it is when it is plain and short, else encoded words, folded. Line breaks become blanks, so that no
/// text can add a header.
fn words(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" !#$%&'*+-/^_`{|}~.,:".contains(&byte);
    if text.len() <= 60 && text.bytes().all(is_plain) {
        return text;
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let part = crate::rt::text::cut(rest, WORD_BYTES_MAX);
        rest = &rest[part.len()..];
        if !out.is_empty() {
            out.push_str("\r\n ");
        }
        out.extend(["=?utf-8?B?", &STANDARD.encode(part), "?="]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(subject: &str, text: &str) -> String {
        let to = ["a@e.net".to_owned(), "Bö <b@e.net>".to_owned()];
        let (zone, from) = (TimeZone::UTC, "Holt <holt@e.net>");
        let now_ms = 1_767_323_045_678;
        Mail { from, to: &to, subject, text, now_ms, id: "7.c", zone: &zone, is_urgent: true }.text()
    }

    #[test]
    fn mails_are_spelled_as_the_rfcs_say() {
        let text = mail("Critical: disk /data", "ä\n.\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "Date: Fri, 02 Jan 2026 03:04:05 +0000",
            "From: Holt <holt@e.net>",
            "To: a@e.net,\r\n =?utf-8?B?QsO2?= <b@e.net>",
            "Subject: Critical: disk /data",
            "Message-ID: <7.c@e.net>",
        ] {
            assert!(head.contains(line), "{line}\n{head}");
        }
        assert_eq!(STANDARD.decode(body.replace("\r\n", "")).unwrap(), "ä\r\n.\r\n".as_bytes());
    }

    #[test]
    fn no_text_adds_a_header_or_a_long_line() {
        let text = mail("x\r\nBcc: evil@e.net\r\n\r\nhello", &"long ".repeat(300));
        assert!(!text.contains("\r\nBcc"), "{text}");
        let long = mail(&"Ünïcode € ".repeat(40), "");
        assert!(text.lines().chain(long.lines()).all(|line| line.len() <= 78), "{text}{long}");
        let subject: String = long
            .split_once("Subject: ")
            .unwrap()
            .1
            .split_once("\r\nMessage-ID")
            .unwrap()
            .0
            .split("\r\n ")
            .map(|word| {
                let word = word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=").unwrap();
                String::from_utf8(STANDARD.decode(word).unwrap()).unwrap()
            })
            .collect();
        assert_eq!(subject, crate::rt::text::cut(&"Ünïcode € ".repeat(40), SUBJECT_BYTES_MAX));
    }
}
