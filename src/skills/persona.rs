//! Who an agent is: four Markdown files that people and the agent itself write (contract engine 6.4, http-api 4.2).

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::files::{self, Stamp};
use crate::limits;
use crate::rt::lock;

/// A part of a persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Identity,
    Soul,
    User,
    Memory,
}

impl Section {
    /// All of them, in the order of the prompt.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Soul, Self::User, Self::Memory];

    /// The section of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.name().eq_ignore_ascii_case(name))
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Soul => "soul",
            Self::User => "user",
            Self::Memory => "memory",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Identity => "IDENTITY.md",
            Self::Soul => "SOUL.md",
            Self::User => "USER.md",
            Self::Memory => "MEMORY.md",
        }
    }

    /// Characters that may be written.
    pub fn chars_max(self) -> usize {
        match self {
            Self::Identity | Self::Soul => limits::PERSONA_CHARS_MAX,
            Self::User => limits::USER_CHARS_MAX,
            Self::Memory => limits::MEMORY_CHARS_MAX,
        }
    }
}

/// Why a section was not written. The old one stays.
#[derive(Debug)]
pub enum PersonaError {
    /// The text is too long.
    TooLong { chars: usize, max: usize },
    /// The disk.
    Io(io::Error),
}

impl fmt::Display for PersonaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { chars, max } => write!(f, "content must be at most {max} characters, it has {chars}"),
            Self::Io(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for PersonaError {}

/// The front matter of `IDENTITY.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub emoji: String,
    pub theme: String,
    pub body: String,
}

/// The four files of one agent. Each is read for itself: what is there counts, whatever else is missing, so that nothing
/// an agent remembered is ever out of its sight and overwritten.
pub struct Persona {
    directory: PathBuf,
    /// Guarded by this mutex: each file as last read. Nothing is taken under it.
    known: Mutex<[Option<(Stamp, String)>; 4]>,
    /// Queues changes; held over I/O on purpose: a change is made of what is there.
    writing: Mutex<()>,
}

impl Persona {
    /// The persona in that directory, which need not exist.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), known: Mutex::default(), writing: Mutex::default() }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A section as it is now, trimmed; empty when there is none or it cannot be read, which the log tells.
    pub fn read(&self, section: Section) -> String {
        let path = self.directory.join(section.file());
        let at = section as usize;
        let Some(stamp) = files::stamp(&path) else {
            lock(&self.known)[at] = None;
            return String::new();
        };
        if let Some((known, text)) = &lock(&self.known)[at]
            && *known == stamp
        {
            return text.clone();
        }
        let text = files::read(&path, limits::PERSONA_BYTES_MAX).unwrap_or_else(|error| {
            log::warn!("{}: not used: {error}", path.display());
            String::new()
        });
        let text = text.trim().to_owned();
        lock(&self.known)[at] = Some((stamp, text.clone()));
        text
    }

    /// Whether a section has anything in it.
    pub fn has(&self, section: Section) -> bool {
        !self.read(section).is_empty()
    }

    /// Replaces a section; what was there before. Counts from the next turn on.
    pub fn write(&self, section: Section, content: &str) -> Result<String, PersonaError> {
        let (chars, max) = (content.trim().chars().count(), section.chars_max());
        if chars > max {
            return Err(PersonaError::TooLong { chars, max });
        }
        self.replace(section, content, |_| true).map(Option::unwrap_or_default)
    }

    /// Puts an older text back, however long, if `expected` likes what is there now; false if not.
    pub fn put_back(
        &self,
        section: Section,
        content: &str,
        expected: impl FnOnce(&str) -> bool,
    ) -> Result<bool, PersonaError> {
        Ok(self.replace(section, content, expected)?.is_some())
    }

    /// What was there before; None when nothing was done.
    fn replace(
        &self,
        section: Section,
        content: &str,
        expected: impl FnOnce(&str) -> bool,
    ) -> Result<Option<String>, PersonaError> {
        let content = content.trim();
        let _queue = lock(&self.writing);
        let path = self.directory.join(section.file());
        // What cannot be read was not seen by whoever writes, and must not be lost.
        let before = match files::read(&path, limits::PERSONA_BYTES_MAX) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(PersonaError::Io(error)),
        };
        if !expected(&before) {
            return Ok(None);
        }
        let written =
            files::make_directory(&self.directory, 0o700).and_then(|()| files::write(&path, &format!("{content}\n")));
        written.map_err(PersonaError::Io)?;
        lock(&self.known)[section as usize] = None;
        Ok(Some(before))
    }

    /// What `IDENTITY.md` says.
    pub fn identity(&self) -> Identity {
        identity(&self.read(Section::Identity))
    }

    /// `<emoji> <name>`, `<name>`, or None when it has no name.
    pub fn display_name(&self) -> Option<String> {
        let identity = self.identity();
        match (identity.emoji.is_empty(), identity.name) {
            (_, name) if name.is_empty() => None,
            (true, name) => Some(name),
            (false, name) => Some(format!("{} {name}", identity.emoji)),
        }
    }

    /// The persona as a part of a system prompt; empty when there is none.
    pub fn prompt(&self) -> String {
        let mut parts = Vec::new();
        let Identity { name, emoji, theme, body } = self.identity();
        let line = [emoji.as_str(), name.as_str()]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        let theme = if theme.is_empty() { theme } else { format!("Theme: {theme}") };
        let about: Vec<&str> = [line.as_str(), &theme, &body].into_iter().filter(|part| !part.is_empty()).collect();
        parts.push(("# Identity", about.join("\n\n")));
        parts.push(("# Soul", self.read(Section::Soul)));
        parts.push(("# User", self.read(Section::User)));
        parts.push(("# Memory", self.read(Section::Memory)));
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(head, text)| format!("{head}\n\n{text}"))
            .collect();
        parts.join("\n\n")
    }
}

/// Front matter between `---` lines: `name`, `emoji`, `theme`. Without both marks all of it is body.
fn identity(text: &str) -> Identity {
    let whole = || Identity { body: text.to_owned(), ..Identity::default() };
    let Some(rest) =
        text.strip_prefix("---").and_then(|rest| rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')))
    else {
        return whole();
    };
    let mut identity = Identity::default();
    let mut lines = rest.split_inclusive('\n');
    let mut front_bytes = 0;
    for line in lines.by_ref() {
        front_bytes += line.len();
        let line = line.trim_end();
        if line == "---" {
            rest[front_bytes..].trim().clone_into(&mut identity.body);
            return identity;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = plain(value);
        match key {
            "name" => identity.name = value,
            "emoji" => identity.emoji = value,
            "theme" => identity.theme = value,
            _ => {}
        }
    }
    whole()
}

/// A scalar on one line: plain, `'quoted'` or `"quoted"`, without its comment.
fn plain(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inside.trim().to_owned();
        }
    }
    value.split(" #").next().unwrap_or("").trim().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_may_have_a_head() {
        let check = |text: &str, name: &str, emoji: &str, theme: &str, body: &str| {
            let found = identity(text);
            assert_eq!(
                (&*found.name, &*found.emoji, &*found.theme, &*found.body),
                (name, emoji, theme, body),
                "{text}"
            );
        };
        check(
            "---\nname: Otto # me\nemoji: \"🦦\"\ntheme: 'calm: blue'\nother: [1]\n---\n\nBody",
            "Otto",
            "🦦",
            "calm: blue",
            "Body",
        );
        check("---\r\nname: A\r\n---\r\n", "A", "", "", "");
        check("Body only", "", "", "", "Body only");
        check("---\nname: A\nno end", "", "", "", "---\nname: A\nno end");
        check("--- \nname: A\n---", "", "", "", "--- \nname: A\n---");
        check("", "", "", "", "");
    }

    #[test]
    fn sections_are_written_bounded_and_read_again_when_somebody_edits_them() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("agents/a");
        let persona = Persona::new(&home);
        assert_eq!((persona.prompt(), persona.display_name()), (String::new(), None));
        assert_eq!(persona.write(Section::Memory, " likes tea \n").unwrap(), "");
        assert_eq!(std::fs::read_to_string(home.join("MEMORY.md")).unwrap(), "likes tea\n");
        assert_eq!(persona.read(Section::Memory), "likes tea", "also without a SOUL.md");
        std::fs::write(home.join("MEMORY.md"), "likes coffee").unwrap();
        assert_eq!(persona.read(Section::Memory), "likes coffee");
        assert!(!persona.put_back(Section::Memory, "x", |now| now == "likes tea").unwrap());
        assert_eq!(persona.write(Section::Memory, "x").unwrap(), "likes coffee");
        let long = "é".repeat(limits::MEMORY_CHARS_MAX);
        persona.write(Section::Memory, &long).unwrap();
        let error = persona.write(Section::Memory, &format!("{long}é")).unwrap_err();
        assert_eq!(error.to_string(), "content must be at most 2200 characters, it has 2201");
        persona.write(Section::Identity, "---\nname: Otto\nemoji: 🦦\n---\nHelps.").unwrap();
        persona.write(Section::Memory, "tea").unwrap();
        assert_eq!(persona.display_name().unwrap(), "🦦 Otto");
        assert_eq!(persona.prompt(), "# Identity\n\n🦦 Otto\n\nHelps.\n\n# Memory\n\ntea");
        // What cannot be read is not overwritten.
        std::fs::write(home.join("USER.md"), [0xff]).unwrap();
        assert!(matches!(persona.write(Section::User, "x"), Err(PersonaError::Io(_))) && !persona.has(Section::User));
    }
}
