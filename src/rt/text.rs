//! Cutting text where characters end.

/// The longest beginning of `text` of at most `bytes_max` bytes.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole() {
        for (text, bytes_max, expected) in
            [("abc", 9, "abc"), ("abc", 2, "ab"), ("aä", 2, "a"), ("€", 2, ""), ("", 0, "")]
        {
            assert_eq!(cut(text, bytes_max), expected);
        }
    }
}
