//! Patterns with `*` (any characters) and `?` (one character), for names and mount points.

/// Whether `text` as a whole is what the pattern means. Takes time in the product of both lengths at worst.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go back to: behind the last star, with one more character under it.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            p += 1;
            back = Some((p, t));
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after_star, under)) = back {
            p = after_star;
            t = under + 1;
            back = Some((after_star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Whether any of the patterns matches.
pub(super) fn any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

/// Whether it names one thing exactly.
pub(super) fn is_exact(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        };
        check("", "", true);
        check("", "a", false);
        check("a", "", false);
        check("*", "", true);
        check("eth*", "eth0", true);
        check("eth*", "veth0", false);
        check("*eth*", "veth0", true);
        check("20?", "204", true);
        check("20?", "20", false);
        check("a*b*c", "aXbXbXc", true);
        check("a*b*c", "aXbXbX", false);
        check("/mnt/*", "/mnt/ä/b", true);
        check("**a", "ba", true);
        check("[a]", "a", false);
        check(&"*a".repeat(50), &"b".repeat(5000), false);
    }
}
