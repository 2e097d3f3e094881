//! Titles and bodies: `{name}` becomes a fact of the notice. `{{` and `}}` are braces.

use super::notice::Notice;

/// Names that can be used; `{label.NAME}` besides.
const FIELDS: [&str; 11] =
    ["title", "description", "machine", "machine_id", "check", "target", "level", "kind", "status", "time", "link"];

enum Part {
    Text(String),
    Field(&'static str),
    Label(String),
}

/// A text with places in it.
pub(super) struct Template(Vec<Part>);

/// What a template is filled with besides the notice.
pub(super) struct Facts<'a> {
    /// Local time, for people.
    pub(super) time: &'a str,
    pub(super) link: &'a str,
}

impl Template {
    /// Reads a template; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(next) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = next;
                continue;
            }
            let Some((name, next)) = after.split_once('}').filter(|_| brace == "{") else {
                return Err("has a brace without its partner; write {{ or }} for a brace of the text".to_owned());
            };
            let part = match (FIELDS.iter().find(|field| **field == name), name.strip_prefix("label.")) {
                (Some(field), _) => Part::Field(field),
                (None, Some(label)) if !label.is_empty() => Part::Label(label.to_owned()),
                _ => {
                    let known = FIELDS.join(", ");
                    return Err(format!("has an unknown name {{{name}}}; known: {known}, label.NAME"));
                }
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(part);
            rest = next;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The text for a notice.
    pub(super) fn fill(&self, notice: &Notice, facts: &Facts<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Label(name) => out.push_str(notice.label(name).unwrap_or_default()),
                Part::Field("title") => out.push_str(&notice.shown_title()),
                Part::Field(name) => out.push_str(match *name {
                    "description" => &notice.body,
                    "machine_id" => &notice.machine_id,
                    "level" => notice.level.name(),
                    "kind" => notice.kind.name(),
                    "status" => notice.status(),
                    "time" => facts.time,
                    "link" => facts.link,
                    // The rest of FIELDS are labels too.
                    name => notice.label(name).unwrap_or_default(),
                }),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::notify::Kind;

    #[test]
    fn names_are_filled_and_unknown_ones_refused() {
        let notice = Notice {
            level: Level::Critical,
            check: "disk::space_usage".into(),
            target: "/data".into(),
            machine: "nas".into(),
            body: "92 % {used}".into(),
            labels: [("site".to_owned(), "home".to_owned())].into(),
            ..Notice::default()
        };
        let facts = Facts { time: "12:00", link: "http://h/#a" };
        let fill = |text: &str| Template::parse(text).map(|template| template.fill(&notice, &facts));
        let check = |text: &str, expected: &str| assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        check("", "");
        check("{title}", "Critical: disk::space_usage /data on nas");
        check("{machine}{target}: {description}", "nas/data: 92 % {used}");
        check("{{{level}}} {label.site}{label.none} {time} {link}", "{Critical} home 12:00 http://h/#a");
        for bad in ["{", "}", "{level", "a } b", "{levl}", "{label.}", "{ level }"] {
            assert!(fill(bad).is_err(), "{bad}");
        }
        let well = Notice { kind: Kind::Recovered, level: Level::Ok, title: String::new(), ..notice };
        assert_eq!(well.shown_title(), "Recovered: disk::space_usage /data on nas");
    }
}
