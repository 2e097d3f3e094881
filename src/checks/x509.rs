//! What a certificate says of itself: when it is valid, whose it is. A strict reader of DER (X.690) for the few fields of
//! RFC 5280 4.1 that matter here, and of PEM (RFC 7468). Pure; trust is nobody's question here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest part of a name that is kept: it is for the reader of an alert.
const NAME_CHARS_MAX: usize = 80;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
/// Text of a name: UTF-8, printable, IA5, and the old BMP (two bytes a character).
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x16, 0x14];
const BMP_TEXT: u8 = 0x1e;
/// 2.5.4.3 and 2.5.4.10: what people call a certificate by.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// What [`of_file`] says of a file without any.
pub(super) const NO_CERTIFICATE: &str = "no certificate in this file";

/// The fields that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Unix seconds.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// Common name, else organisation; empty when it has neither, as many have today.
    pub(super) subject: String,
    pub(super) issuer: String,
}

/// The rest of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        // Numbers of tags above 30 do not occur in certificates.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                // DER has one spelling of a length: the shortest.
                if length < 0x80 || bytes[0] == 0 {
                    return None;
                }
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

impl Certificate {
    /// Reads one certificate; nothing may follow it.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let mut outer = Der(der);
        let mut certificate = Der(outer.expect(SEQUENCE)?);
        if !outer.0.is_empty() {
            return None;
        }
        let mut fields = Der(certificate.expect(SEQUENCE)?);
        let (mut tag, _) = fields.next()?;
        if tag == VERSION {
            (tag, _) = fields.next()?;
        }
        if tag != INTEGER {
            return None;
        }
        fields.expect(SEQUENCE)?;
        let issuer = name(fields.expect(SEQUENCE)?)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = name(fields.expect(SEQUENCE)?)?;
        Some(Self { not_before, not_after, subject, issuer })
    }
}

/// When the first certificate in PEM begins and ends to be valid, in Unix seconds; None when it cannot be read.
pub fn validity(pem: &[u8]) -> Option<(i64, i64)> {
    let first = of_file(pem).ok()?.into_iter().next()?;
    Some((first.not_before, first.not_after))
}

/// The certificates of a file: PEM with any number of them, or one in DER.
pub(super) fn of_file(bytes: &[u8]) -> Result<Vec<Certificate>, &'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if bytes.first() == Some(&SEQUENCE) {
        return Certificate::parse(bytes).map(|certificate| vec![certificate]).ok_or("not a certificate in DER");
    }
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let (body, _) = block.split_once(END).ok_or("a certificate in PEM has no end")?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| "a certificate in PEM is not base64")?;
        found.push(Certificate::parse(&der).ok_or("a certificate in PEM holds no certificate")?);
    }
    if found.is_empty() { Err(NO_CERTIFICATE) } else { Ok(found) }
}

fn name(der: &[u8]) -> Option<String> {
    let mut sets = Der(der);
    let mut found = String::new();
    while !sets.0.is_empty() {
        let mut set = Der(sets.expect(SET)?);
        while !set.0.is_empty() {
            let mut pair = Der(set.expect(SEQUENCE)?);
            let oid = pair.expect(OID)?;
            let (tag, value) = pair.next()?;
            if oid == COMMON_NAME || (oid == ORGANIZATION && found.is_empty()) {
                found = text(tag, value);
            }
        }
    }
    Some(found)
}

fn text(tag: u8, value: &[u8]) -> String {
    let text = if TEXTS.contains(&tag) {
        String::from_utf8_lossy(value).into_owned()
    } else if tag == BMP_TEXT {
        char::decode_utf16(value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])))
            .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    } else {
        String::new()
    };
    text.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect()
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`: the only forms that RFC 5280 4.1.2.5 allows.
fn time((tag, digits): (u8, &[u8])) -> Option<i64> {
    let (year_digits, rest) = digits.split_at_checked(match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    })?;
    let mut year = number(year_digits)?;
    if tag == UTC_TIME {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let [month, day, hour, minute, second] = *rest
        .strip_suffix(b"Z")?
        .chunks(2)
        .map(|pair| if pair.len() == 2 { number(pair) } else { None })
        .collect::<Option<Vec<_>>>()?
        .as_slice()
    else {
        return None;
    };
    let plausible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    plausible.then(|| days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Days of the Gregorian calendar. The library for time ends a day before 9999-12-31, which certificates mean as "never".
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Self-signed for `holt.test`, 2020-01-01 to 2049-12-31; made for these tests.
    pub(in crate::checks) const LASTING: &str = include_str!("fixtures/lasting.pem");
    /// The same until 9999-12-31, which is how certificates say "never".
    pub(in crate::checks) const NEVER_ENDING: &str = include_str!("fixtures/never-ending.pem");

    #[test]
    fn validity_and_names_are_read() {
        let found = of_file(LASTING.as_bytes()).unwrap();
        let names = ("holt.test".to_owned(), "holt.test".to_owned());
        let (not_before, not_after) = (1_577_836_800, 2_524_607_999);
        assert_eq!(found, [Certificate { not_before, not_after, subject: names.0, issuer: names.1 }]);
        let both = format!("text before\n{LASTING}text between\n{NEVER_ENDING}");
        let found = of_file(both.as_bytes()).unwrap();
        assert_eq!(found[1].not_after, 253_402_300_799);
        assert_eq!(found[1].subject, "Fixtures Ltd");
    }

    #[test]
    fn der_files_are_read_and_broken_files_say_what_is_wrong() {
        let der = STANDARD.decode(LASTING.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
        assert_eq!(of_file(&der).unwrap()[0].subject, "holt.test");
        let check = |bytes: &[u8], error: &str| assert_eq!(of_file(bytes).unwrap_err(), error);
        check(b"", "no certificate in this file");
        check(b"garbage", "no certificate in this file");
        check(&LASTING.as_bytes()[..LASTING.len() - 10], "a certificate in PEM has no end");
        check(LASTING.replace("MII", "!!!").as_bytes(), "a certificate in PEM is not base64");
        check(&[der.as_slice(), b"x"].concat(), "not a certificate in DER");
    }

    #[test]
    fn no_mutilation_panics() {
        let der = STANDARD.decode(LASTING.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
        for at in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..at]), None);
            for value in [0, 1, 0x30, 0x7f, 0x80, 0x83, 0xff] {
                let mut broken = der.clone();
                broken[at] = value;
                // Any answer will do.
                let _ = Certificate::parse(&broken);
            }
        }
    }

    #[test]
    fn times_are_read_strictly() {
        let check = |tag: u8, digits: &str, expected: Option<i64>| {
            assert_eq!(time((tag, digits.as_bytes())), expected, "{digits}");
        };
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "490101000000Z", Some(2_493_072_000));
        check(UTC_TIME, "500101000000Z", Some(-631_152_000));
        check(GENERALIZED_TIME, "20240229120001Z", Some(1_709_208_001));
        check(GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799));
        check(UTC_TIME, "701301000000Z", None);
        check(UTC_TIME, "7001010000Z", None);
        check(UTC_TIME, "70010100000Z", None);
        check(UTC_TIME, "700101000000+0100", None);
        check(UTC_TIME, "70-101000000Z", None);
        check(UTC_TIME, "", None);
        check(0x05, "700101000000Z", None);
    }
}
