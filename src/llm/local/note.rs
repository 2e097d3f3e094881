//! Notes: what people ask to be remembered, over the key-value tools. English only.
//!
//! A note is a name and what belongs to it: "remember that the door code is 1234" stores `1234` under `door-code`.

use serde_json::{Value, json};

use crate::llm::local::numbers::{code, list, text};
use crate::llm::local::plan::Planned;
use crate::llm::local::replies::reply;
use crate::llm::local::vocabulary::POLITE;
use crate::llm::local::wish::Say;

/// A wish about notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Set {
        key: String,
        value: String,
    },
    /// `guess`: a question that nothing else answers; it may be about a note.
    Get {
        key: String,
        guess: bool,
    },
    List,
    Delete {
        key: String,
    },
    /// Something to keep or to forget that has no name.
    Unclear,
}

/// Longer messages are no notes.
const TEXT_BYTES_MAX: usize = 2000;

/// Words of a name, at most.
const NAME_WORDS_MAX: usize = 6;

/// What a note is called by in a question, even where it begins with the word for a part of the machine: "wifi password".
const PRIVATE: &[&str] = &["password", "passphrase", "code", "note", "pin", "birthday", "phone", "email"];

/// Words around a name.
const AROUND: &[&str] =
    &["the", "my", "our", "your", "a", "an", "about", "what", "that", "this", "it", "is", "are", "was", "please"];

/// The wish of a message about notes; none when it is about something else.
pub(super) fn understand(text: &str) -> Option<Note> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let text = without_politeness(text);
    let all = ["what do you remember", "what did i tell you", "what have you remembered", "list what you remember"];
    if let Some(rest) = after(text, &all) {
        return Some(key(rest).map_or(Note::List, |key| Note::Get { key, guess: false }));
    }
    if let Some(rest) = after(text, &["do you remember", "do you still remember", "recall"]) {
        return key(rest).map(|key| Note::Get { key, guess: false });
    }
    // "Forget that, show me the memory" is about the memory.
    if let Some(rest) = after(text, &["forget"]).filter(|rest| !rest.contains(',')) {
        let key = key(rest)?;
        return match key.as_str() {
            "everything" | "all" | "all-notes" => Some(Note::Unclear),
            _ => Some(Note::Delete { key }),
        };
    }
    if let Some(rest) = after(text, &["remember", "memorize", "memorise", "keep in mind"]) {
        if rest.ends_with('?') {
            return key(rest).map(|key| Note::Get { key, guess: false });
        }
        let note = pair(rest).and_then(|(name, value)| Some(Note::Set { key: key(name)?, value: plain(value)? }));
        return Some(note.unwrap_or(Note::Unclear));
    }
    question(text).filter(|note| {
        let Note::Get { key, .. } = note else { return false };
        key.rsplit('-').next().is_some_and(|last| PRIVATE.contains(&last))
    })
}

/// The note that a question which nothing else answers may be about.
pub(super) fn question(text: &str) -> Option<Note> {
    let starts = ["what is", "what's", "whats", "what’s", "what are", "where is", "when is", "who is", "tell me"];
    let key = key(after(without_politeness(text), &starts)?)?;
    key.starts_with(char::is_alphabetic).then_some(Note::Get { key, guess: true })
}

impl Note {
    /// The call that it takes; none without a name.
    pub(super) fn plan(&self) -> Option<Planned> {
        let (tool, arguments) = match self {
            Self::Set { key, value } => ("kv_set", json!({"key": key, "value": value})),
            Self::Get { key, .. } => ("kv_get", json!({"key": key})),
            Self::List => ("kv_list", json!({})),
            Self::Delete { key } => ("kv_delete", json!({"key": key})),
            Self::Unclear => return None,
        };
        Some(Planned { tool, arguments })
    }

    /// What is said when the call was made or refused.
    pub(super) fn report(&self, outcome: &Result<Value, String>) -> String {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(reason) => return self.failed(reason),
        };
        match self {
            Self::Set { key, value } => {
                format!("I will remember it: {} is {}.\n", code(key), shown(value))
            }
            Self::Get { key, guess } => match (text(answer, "value"), guess) {
                (Some(value), _) => format!("{} is {}.\n", code(key), shown(value)),
                (None, true) => format!("I remember nothing called {}.\n\n{}", code(key), reply(Say::Unknown)),
                (None, false) => format!("I remember nothing called {}. {HOW}", code(key)),
            },
            Self::List => listed(answer),
            Self::Delete { key } => format!("I have forgotten {}.\n", code(key)),
            Self::Unclear => HOW.to_owned(),
        }
    }

    fn failed(&self, reason: &str) -> String {
        let what = match self {
            Self::Set { key, .. } => format!("I did not store {}", code(key)),
            Self::Delete { key } => format!("I still remember {}", code(key)),
            Self::Get { .. } | Self::List | Self::Unclear => "I could not look into my notes".to_owned(),
        };
        match reason {
            _ if reason.starts_with("The user denied") => format!("{what}, because it was not allowed.\n"),
            _ if reason.starts_with("Nobody allowed") => format!("{what}, because nobody allowed it in time.\n"),
            _ => format!("{what}: {reason}\n"),
        }
    }
}

/// How to say it, when a name is missing.
pub(super) const HOW: &str = "A note needs a name. Say \"remember that the door code is 1234\", then ask \"what is the \
    door code?\", \"what do you remember?\", or say \"forget the door code\".\n";

fn listed(answer: &Value) -> String {
    let entries = list(answer, "entries");
    if entries.is_empty() {
        return format!("I remember nothing yet. {HOW}");
    }
    let mut lines = "This is what I remember:\n\n".to_owned();
    for entry in entries {
        let (key, value) = (text(entry, "key").unwrap_or(""), text(entry, "value").unwrap_or(""));
        lines.push_str(&["- ", &code(key), ": ", &shown(value), "\n"].concat());
    }
    if answer.get("next").is_some() {
        lines.push_str("\nThere is more than fits here.\n");
    }
    lines
}

/// A stored text on one line, so that it cannot act as Markdown.
fn shown(value: &str) -> String {
    code(&value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What follows one of these beginnings, which are lower case and whole words.
fn after<'a>(text: &'a str, starts: &[&str]) -> Option<&'a str> {
    starts.iter().find_map(|start| {
        let head = text.get(..start.len())?;
        let rest = &text[start.len()..];
        (head.eq_ignore_ascii_case(start) && !rest.starts_with(char::is_alphanumeric)).then_some(rest.trim())
    })
}

fn without_politeness(text: &str) -> &str {
    let mut rest = text.trim();
    while let Some((word, after)) = rest.split_once(char::is_whitespace) {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        if !POLITE.contains(&word.as_str()) {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// A name and what belongs to it, at the first mark between the two.
fn pair(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([':', ',']);
    let lower = text.to_ascii_lowercase();
    let marks = [" is ", " are ", " equals ", "=", ": "];
    let (at, mark) = marks.iter().filter_map(|mark| Some((lower.find(mark)?, mark.len()))).min()?;
    Some((&text[..at], &text[at + mark..]))
}

/// A name as a key: `door-code`. None when nothing is left of it, or too much.
fn key(name: &str) -> Option<String> {
    let parts = name.split(|c: char| !c.is_alphanumeric() && !matches!(c, '/' | '_'));
    let words: Vec<String> = parts.filter(|part| !part.is_empty()).map(str::to_lowercase).collect();
    let around = |word: &String| AROUND.contains(&word.as_str());
    let start = words.iter().position(|word| !around(word))?;
    let end = words.iter().rposition(|word| !around(word))? + 1;
    (end - start <= NAME_WORDS_MAX).then(|| words[start..end].join("-"))
}

/// A value without the full stop of its sentence and without quotation marks.
fn plain(value: &str) -> Option<String> {
    let value = value.trim();
    let value = value.strip_suffix(['.', '!']).unwrap_or(value);
    let bare = value.strip_prefix(['"', '\'', '“']).and_then(|value| value.strip_suffix(['"', '\'', '”']));
    Some(bare.unwrap_or(value).to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Option<Note> {
        Some(Note::Set { key: key.to_owned(), value: value.to_owned() })
    }

    fn get(key: &str, guess: bool) -> Option<Note> {
        Some(Note::Get { key: key.to_owned(), guess })
    }

    #[test]
    fn wishes_about_notes() {
        let delete = |key: &str| Some(Note::Delete { key: key.to_owned() });
        for (text, expected) in [
            ("remember that the door code is 1234", set("door-code", "1234")),
            ("Please remember: the Door Code is 1234.", set("door-code", "1234")),
            ("Can you remember that my wifi password is \"Ab c!\"", set("wifi-password", "Ab c!")),
            ("remember X = Y = Z", set("x", "Y = Z")),
            ("remember garage=left", set("garage", "left")),
            ("remember homepage: https://x.org/a?b=c", set("homepage", "https://x.org/a?b=c")),
            ("memorise Anna's birthday is 'May 3'", set("anna-s-birthday", "May 3")),
            ("remember that Straße is Größe", set("straße", "Größe")),
            ("remember to buy bread", Some(Note::Unclear)),
            ("remember", Some(Note::Unclear)),
            ("remember that the is .", Some(Note::Unclear)),
            ("what do you remember", Some(Note::List)),
            ("Holt, what did I tell you?", Some(Note::List)),
            ("what do you remember about the door code?", get("door-code", false)),
            ("do you remember what the door code is?", get("door-code", false)),
            ("can you remember the door code?", get("door-code", false)),
            ("what is the door code?", get("door-code", true)),
            ("What’s my wifi password", get("wifi-password", true)),
            ("forget the door code", delete("door-code")),
            ("please forget about my PIN", delete("pin")),
            ("forget everything", Some(Note::Unclear)),
            ("forget it", None),
            ("rememberance", None),
            ("what is my IP", None),
            ("how is this machine doing?", None),
            ("", None),
            ("ü", None),
        ] {
            assert_eq!(understand(text), expected, "{text}");
        }
        assert_eq!(understand(&format!("remember x = {}", "y".repeat(TEXT_BYTES_MAX))), None);
        assert_eq!(question("what is the capital of France?"), get("capital-of-france", true));
        assert_eq!(question("what is 2+2"), None);
        assert_eq!(question("write me a poem"), None);
    }

    #[test]
    fn answers_are_sentences() {
        let note = understand("remember that the door code is `12 34`").unwrap();
        assert_eq!(note.report(&Ok(json!({"ok": true}))), "I will remember it: `door-code` is `'12 34'`.\n");
        let denied = Err("The user denied this tool call. It was not made.".to_owned());
        assert_eq!(note.report(&denied), "I did not store `door-code`, because it was not allowed.\n");
        assert_eq!(
            note.report(&Err("the hub's disk is full".to_owned())),
            "I did not store `door-code`: the hub's disk is full\n"
        );
        let asked = understand("do you remember the door code?").unwrap();
        assert_eq!(asked.report(&Ok(json!({"value": "1\n2"}))), "`door-code` is `1 2`.\n");
        assert!(asked.report(&Ok(json!({"value": null}))).starts_with("I remember nothing called `door-code`. A note"));
        let guess = question("what is love").unwrap().report(&Ok(json!({"value": null})));
        assert!(guess.contains("nothing called `love`") && guess.contains("I did not understand"), "{guess}");
        let list = json!({"entries": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}], "next": "b"});
        assert_eq!(
            Note::List.report(&Ok(list)),
            "This is what I remember:\n\n- `a`: `1`\n- `b`: `2`\n\nThere is more than fits here.\n"
        );
        assert!(Note::List.report(&Ok(json!({}))).starts_with("I remember nothing yet."));
        let gone = Note::Delete { key: "a".to_owned() };
        assert_eq!(gone.report(&Ok(json!({"ok": true}))), "I have forgotten `a`.\n");
        assert_eq!(gone.report(&denied), "I still remember `a`, because it was not allowed.\n");
    }
}
