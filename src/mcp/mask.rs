//! Secrets that a server was given must not come back in errors and logs.

use crate::rt::order::Order;
/// Shorter values are no secrets: masking every `1` or `true` would make texts unreadable.
const SECRET_BYTES_MIN: usize = 6;
/// What stands in their place.
const MASK: &str = "***";

/// The values of one server's environment and headers.
#[derive(Clone, Default)]
pub struct Mask {
    secrets: Vec<String>,
}

impl Mask {
    /// Masks these values wherever they stand. The longest first: one may hold another.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for value in values {
            secrets.push(value.to_owned());
            // `Bearer abc`: a server that complains quotes only the second word.
            secrets.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.order_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// The same with one more.
    pub(super) fn with(&self, secret: Option<&str>) -> Self {
        Self::new(self.secrets.iter().map(String::as_str).chain(secret))
    }

    /// The text without them.
    pub fn apply(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for secret in &self.secrets {
            if shown.contains(secret.as_str()) {
                shown = shown.replace(secret.as_str(), MASK);
            }
        }
        shown
    }

    /// The longest of them: where a text is cut, so much before the cut may be a part of one.
    pub(super) fn longest(&self) -> usize {
        self.secrets.first().map_or(0, String::len)
    }
}

/// At most `bytes_max` of a text, cut between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_short_words_are_not() {
        let mask = Mask::new(["Bearer hunter2-long", "true", "hunter2"]);
        assert_eq!(mask.apply("true: hunter2-long and hunter2x"), "true: *** and ***x");
        assert_eq!(mask.apply("bad Bearer hunter2-long!"), "bad ***!");
        assert_eq!(cut("aé", 2), "a");
    }
}
