//! Text that others wrote, made fit for a terminal.

/// Whether a character could move the cursor, change colours or hide what follows.
fn is_control(c: char) -> bool {
    // Besides control characters: the marks that reorder text (Trojan Source, CVE-2021-42574).
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Without control characters, but with line ends and tabs.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|&c| c == '\n' || c == '\t' || !is_control(c)).collect()
}

/// On one line, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let joined = text.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c });
    joined.filter(|&c| !is_control(c)).collect()
}

/// At most `max` characters; `...` behind what was cut.
pub(super) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Columns on a terminal, near enough for tables: East Asian letters and emoji take two, combining marks none.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe4f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(plain("a\x1b[31mb\r\nc\td\u{7}\u{9b}e\u{202e}f"), "a[31mb\nc\tdef");
        assert_eq!(one_line("a\nb\r\n\x1b]0;t\x07"), "a b ]0;t");
    }

    #[test]
    fn cutting_counts_characters() {
        let check = |text: &str, max: usize, expected: &str| assert_eq!(cut(text, max), expected);
        check("abc", 3, "abc");
        check("abcd", 3, "abc...");
        check("äöü€", 3, "äöü...");
        check("", 0, "");
    }

    #[test]
    fn widths_of_wide_and_combining_letters() {
        for (text, columns) in [("abc", 3), ("温度", 4), ("e\u{301}", 1), ("🦦", 2), ("", 0)] {
            assert_eq!(width(text), columns, "{text}");
        }
    }
}
