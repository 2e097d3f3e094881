//! Words of a message: lower case, umlauts spelled out, small typos forgiven.

/// A message cut into words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    words: Vec<String>,
    /// All words between single blanks, with one at each end: what phrases are looked for in.
    line: String,
}

/// Most characters of a message that are looked at: wishes come first, pasted logs later.
const CHARS_MAX: usize = 600;

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut plain = String::with_capacity(text.len().min(CHARS_MAX) + 16);
        for character in text.chars().take(CHARS_MAX).flat_map(char::to_lowercase) {
            match character {
                'ä' => plain.push_str("ae"),
                'ö' => plain.push_str("oe"),
                'ü' => plain.push_str("ue"),
                'ß' => plain.push_str("ss"),
                // "what's" and "whats" are one word.
                '\'' | '’' | '`' => {}
                // Parts of unit and host names.
                '-' | '_' | '.' | '@' | '/' => plain.push(character),
                _ if character.is_alphanumeric() => plain.push(character),
                _ => plain.push(' '),
            }
        }
        let words: Vec<String> = plain
            .split_whitespace()
            .map(|word| word.trim_matches(['-', '_', '.', '@', '/']).to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        let line = format!(" {} ", words.join(" "));
        Self { words, line }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// The word at a place; empty beyond the end.
    pub(super) fn at(&self, place: usize) -> &str {
        self.words.get(place).map_or("", String::as_str)
    }

    /// Whether one of the phrases is in the message, as whole words.
    pub(super) fn has_phrase(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.line.contains(&format!(" {phrase} ")))
    }

    /// Whether one of the words is in the message, exactly.
    pub(super) fn has_word(&self, wanted: &[&str]) -> bool {
        self.iter().any(|word| wanted.contains(&word))
    }

    /// Whether the message consists of such words only.
    pub(super) fn only(&self, allowed: &[&str]) -> bool {
        !self.is_empty() && self.iter().all(|word| allowed.contains(&word))
    }
}

/// Whether somebody who typed `word` may have meant `known`.
///
/// Short words must be right, for many short words are neighbours ("space" and "spice"): five letters forgive a
/// swapped pair, a missing or a doubled letter, from six on one wrong letter, from nine on two.
pub(super) fn means(word: &str, known: &str) -> bool {
    if word == known {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), known.chars().collect());
    if a.len() < 4 || a.first() != b.first() {
        return false;
    }
    match b.len() {
        0..=3 => false,
        4 => is_swap(&a, &b),
        5 => is_swap(&a, &b) || (a.len() != b.len() && distance(&a, &b) == 1),
        6..=8 => distance(&a, &b) <= 1,
        _ => distance(&a, &b) <= 2,
    }
}

fn is_swap(a: &[char], b: &[char]) -> bool {
    a.len() == b.len() && distance(a, b) == 1 && a.iter().zip(b).filter(|(x, y)| x != y).count() == 2
}

/// Optimal string alignment: insert, delete, replace, or swap two neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut table = vec![0_usize; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = |i: usize, j: usize| table[i * width + j];
            let best = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = at(i - 1, j - 1) + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(at(i - 1, j) + 1).min(at(i, j - 1) + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(at(i - 2, j - 2) + 1);
                }
                best
            };
            table[i * width + j] = best;
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(Words::of(text).iter().collect::<Vec<_>>(), expected, "{text}");
        };
        check("What's  UP?", &["whats", "up"]);
        check("Läuft nginx.service?", &["laeuft", "nginx.service"]);
        check("... -- ?!", &[]);
        check("Größe/Platz", &["groesse/platz"]);
        assert!(Words::of("Is the disk full?").has_phrase(&["the disk"]));
        assert!(!Words::of("other disk").has_phrase(&["the"]));
        assert_eq!(Words::of(&"word ".repeat(10_000)).len(), CHARS_MAX / 5);
    }

    #[test]
    fn small_typos_are_forgiven_and_neighbours_are_not() {
        let check =
            |word: &str, known: &str, expected: bool| assert_eq!(means(word, known), expected, "{word} {known}");
        for (word, known) in [
            ("memroy", "memory"),
            ("memmory", "memory"),
            ("dsik", "disk"),
            ("proccesses", "processes"),
            ("temprature", "temperature"),
            ("servces", "services"),
            ("netwrok", "network"),
            ("festplate", "festplatte"),
        ] {
            check(word, known, true);
        }
        for (word, known) in [
            ("desk", "disk"),
            ("spice", "space"),
            ("server", "service"),
            ("login", "logs"),
            ("rom", "ram"),
            ("update", "uptime"),
            ("heart", "health"),
            ("weather", "memory"),
            ("dogs", "logs"),
            ("", "disk"),
        ] {
            check(word, known, false);
        }
    }
}
