//! Character references of HTML (`&amp;`, `&#228;`).

/// U+00A0 to U+00FF in order.
const LATIN_1: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 \
sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring \
AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash \
Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml \
igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn \
yuml";
/// Others that pages really use.
const OTHERS: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("hellip", '…'),
    ("mdash", '—'),
    ("ndash", '–'),
    ("lsquo", '‘'),
    ("rsquo", '’'),
    ("sbquo", '‚'),
    ("ldquo", '“'),
    ("rdquo", '”'),
    ("bdquo", '„'),
    ("bull", '•'),
    ("euro", '€'),
    ("trade", '™'),
    ("larr", '←'),
    ("rarr", '→'),
    ("uarr", '↑'),
    ("darr", '↓'),
    ("ne", '≠'),
    ("le", '≤'),
    ("ge", '≥'),
    ("minus", '−'),
    ("infin", '∞'),
    ("check", '✓'),
    ("thinsp", '\u{2009}'),
    ("ensp", '\u{2002}'),
    ("emsp", '\u{2003}'),
    ("zwnj", '\u{200c}'),
    ("zwj", '\u{200d}'),
];
/// What the bytes 0x80 to 0x9f mean in windows-1252; those without a meaning stand as U+FFFD.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{fffd}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{fffd}', 'Ž', '\u{fffd}', '\u{fffd}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{fffd}', 'ž', 'Ÿ',
];
/// `&#x10FFFF;` and the longest name are shorter.
const NAME_BYTES_MAX: usize = 10;

/// Resolves all references; what is none stays as it is.
pub(super) fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let is_end = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'#';
        let name_len = match rest.bytes().skip(1).take(NAME_BYTES_MAX).position(is_end) {
            Some(len) => len,
            None if rest.len() <= NAME_BYTES_MAX => rest.len() - 1,
            None => 0,
        };
        let found = rest.get(1..=name_len).and_then(|name| Some((name, character(name)?)));
        if let Some((name, c)) = found {
            out.push(c);
            rest = &rest[1 + name.len()..];
            rest = rest.strip_prefix(';').unwrap_or(rest);
        } else {
            out.push('&');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// A byte of latin-1 as pages mean it: windows-1252.
pub(super) fn latin1(byte: u8) -> char {
    match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

fn character(name: &str) -> Option<char> {
    if name.is_empty() {
        return None;
    }
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return Some(match u8::try_from(code) {
            Ok(byte) => latin1(byte),
            Err(_) => char::from_u32(code).unwrap_or('\u{fffd}'),
        });
    }
    if let Some((_, c)) = OTHERS.iter().find(|(known, _)| *known == name) {
        return Some(*c);
    }
    let index = LATIN_1.split_ascii_whitespace().position(|known| known == name)?;
    char::from_u32(0xa0 + u32::try_from(index).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_characters() {
        for (text, expected) in [
            ("a &amp; b", "a & b"),
            ("&lt;p&gt;", "<p>"),
            ("&auml;&Ouml;&szlig;&yuml;&nbsp;&iexcl;", "äÖßÿ\u{a0}¡"),
            ("&#228;&#xE4;&#XE4;", "äää"),
            ("&#8364;&#128;&#150;", "€€–"),
            ("&#0;&#x110000;&#99999999999;", "\0\u{fffd}&#99999999999;"),
            ("AT&T &unknown; &", "AT&T &unknown; &"),
            ("&copy 2026", "© 2026"),
            ("&&amp;&", "&&&"),
            ("&amp;lt;", "&lt;"),
            ("&ä;&é", "&ä;&é"),
            ("&#;&#x;&#-1;", "&#;&#x;&#-1;"),
            ("", ""),
        ] {
            assert_eq!(decode(text), expected, "{text}");
        }
        assert_eq!(LATIN_1.split_ascii_whitespace().count(), 96);
    }
}
