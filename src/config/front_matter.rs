//! The head of a skill file: TOML between `+++` marks (contract engine 6.1).

use toml_edit::{Array, DocumentMut, Item, value};

use super::json::{self, FromJson, typed};

/// The keys of a front matter that mean something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontMatter {
    pub name: String,
    pub description: String,
    pub version: String,
    pub triggers: Vec<String>,
    pub requires: Requires,
}

/// `[requires]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requires {
    pub tools: Vec<String>,
}

typed!(FrontMatter { name, description, version, triggers, requires });
typed!(Requires { tools });

impl FrontMatter {
    /// Reads the text between the marks. The error says what is wrong and, where it is the spelling, in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let doc: DocumentMut = match text.parse() {
            Ok(doc) => doc,
            Err(error) => {
                let error: toml_edit::TomlError = error;
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let reason = error.message().trim().replace('\n', ", ");
                return Err(format!("front matter, line {line}: {reason}"));
            }
        };
        let mut front = Self::default();
        if !front.take(json::of_table(doc.as_table())) {
            return Err("front matter: name, description and version must be texts, triggers and requires.tools \
                        lists of texts"
                .to_owned());
        }
        for text in [&mut front.name, &mut front.description, &mut front.version] {
            *text = text.trim().to_owned();
        }
        Ok(front)
    }

    /// The text between the marks, with a line feed at its end. What else stands in `old` stays: `requires`, comments,
    /// keys of others. Empty keys are left out.
    pub fn write(&self, old: &str) -> String {
        let mut doc: DocumentMut = old.parse().unwrap_or_default();
        for (key, text) in [("name", &self.name), ("description", &self.description), ("version", &self.version)] {
            let known = doc.get(key).and_then(Item::as_str).is_some_and(|known| known.trim() == text);
            match text.is_empty() {
                true => drop(doc.remove(key)),
                false if known => {}
                false => drop(doc.insert(key, value(text))),
            }
        }
        let known = doc.get("triggers").and_then(Item::as_array);
        let is_same = known.is_some_and(|known| {
            known.iter().map(toml_edit::Value::as_str).eq(self.triggers.iter().map(|text| Some(text.as_str())))
        });
        match self.triggers.is_empty() {
            true => drop(doc.remove("triggers")),
            false if is_same => {}
            false => drop(doc.insert("triggers", value(self.triggers.iter().collect::<Array>()))),
        }
        let mut text = doc.to_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_others_stay_when_they_are_written() {
        let old = "# mine\nname = \" weather \"\nversion = '1'\nauthor = \"me\"\ntriggers = [\"command:w\"]\n[requires]\ntools = [\"web_fetch\"]\n";
        let mut front = FrontMatter::parse(old).unwrap();
        assert_eq!((front.name.as_str(), front.triggers.len()), ("weather", 1));
        assert_eq!(front.requires.tools, ["web_fetch"]);
        front.version = "2".into();
        front.triggers.clear();
        let text = front.write(old);
        assert_eq!(FrontMatter::parse(&text).unwrap(), front);
        assert!(text.contains("# mine") && text.contains("author") && !text.contains("triggers"), "{text}");
        let fresh = FrontMatter { name: "a".into(), ..FrontMatter::default() };
        assert_eq!(fresh.write(""), "name = \"a\"\n");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            ("name = ", "line 1"),
            ("a = 1\nb = = 2", "line 2"),
            ("name = 1", "must be texts"),
            ("triggers = 'x'", "must be texts"),
            ("requires = 3", "must be texts"),
        ] {
            let error = FrontMatter::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
