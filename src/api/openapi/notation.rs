//! The notation of `routes.txt`, and JSON Schema made of it.

use serde_json::{Map, Value, json};

/// What is said of one route.
#[derive(Default)]
pub(in crate::api) struct Doc<'a> {
    pub method: &'a str,
    /// The pattern of the table of routes.
    pub path: String,
    pub summary: &'a str,
    /// Fields of the query.
    pub query: &'a str,
    pub body: &'a str,
    /// The body may be left out.
    pub body_is_optional: bool,
    /// In the order of the text: the first is the success that the contract names.
    pub answers: Vec<Answer<'a>>,
}

/// A status that is a success.
pub(in crate::api) struct Answer<'a> {
    pub status: &'a str,
    pub summary: &'a str,
    /// A type, or a media type; none of them for an empty body.
    pub bodies: Vec<&'a str>,
}

/// All named types and all routes of a text.
pub(in crate::api) fn read(text: &str) -> (Vec<(&str, &str)>, Vec<Doc<'_>>) {
    let (mut types, mut docs): (Vec<(&str, &str)>, Vec<Doc<'_>>) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some(mark) = line.chars().next() else { continue };
        let rest = &line[mark.len_utf8()..];
        match (mark, docs.last_mut()) {
            ('#', _) => {}
            ('@', _) => types.extend(rest.split_once(' ')),
            ('?', Some(doc)) => doc.query = rest,
            ('<', Some(doc)) => {
                doc.body = rest.trim_start_matches('?');
                doc.body_is_optional = rest.starts_with('?');
            }
            ('>', Some(doc)) => doc.answers.last_mut().into_iter().for_each(|answer| answer.bodies.push(rest)),
            ('+', Some(doc)) => doc.answers.push(answer(rest)),
            _ => docs.extend(route(line)),
        }
    }
    (types, docs)
}

fn route(line: &str) -> Option<Doc<'_>> {
    let (method, rest) = line.split_once(' ')?;
    let (path, rest) = rest.split_once(' ')?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/api/v1/{path}") };
    let first = answer(rest);
    Some(Doc { method, path, summary: first.summary, answers: vec![first], ..Doc::default() })
}

fn answer(rest: &str) -> Answer<'_> {
    let (status, summary) = rest.split_once(' ').unwrap_or((rest, ""));
    Answer { status, summary, bodies: Vec::new() }
}

/// The schema of a type; None when it is not well formed.
pub(in crate::api) fn schema(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let schema = reader.kind()?;
    reader.rest.is_empty().then_some(schema)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn kind(&mut self) -> Option<Value> {
        let first = self.rest.chars().next()?;
        self.rest = &self.rest[first.len_utf8()..];
        let plain = |name: &str| json!({ "type": name });
        let schema = match first {
            's' => plain("string"),
            'i' => plain("integer"),
            'n' => plain("number"),
            'b' => plain("boolean"),
            't' => json!({"type": "string", "format": "date-time"}),
            'a' => json!({}),
            '@' => json!({"$ref": format!("#/components/schemas/{}", self.word())}),
            '[' => {
                let items = self.kind()?;
                self.expect(']')?;
                json!({"type": "array", "items": items})
            }
            '{' => {
                let values = self.kind()?;
                self.expect('}')?;
                json!({"type": "object", "additionalProperties": values})
            }
            '<' => {
                let (words, rest) = self.rest.split_once('>')?;
                self.rest = rest;
                json!({"type": "string", "enum": words.split('|').collect::<Vec<_>>()})
            }
            '(' => self.object()?,
            _ => return None,
        };
        Some(match self.rest.strip_prefix('~') {
            Some(rest) => {
                self.rest = rest;
                json!({"anyOf": [schema, {"type": "null"}]})
            }
            None => schema,
        })
    }

    fn object(&mut self) -> Option<Value> {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        loop {
            let name = self.word();
            let may_be_absent = self.expect('?').is_some();
            let kind = match self.expect(':') {
                Some(()) => self.kind()?,
                None => json!({"type": "string"}),
            };
            properties.insert(name.to_owned(), kind);
            if !may_be_absent {
                required.push(name);
            }
            if self.expect(')').is_some() {
                let mut schema = json!({"type": "object", "properties": properties});
                if !required.is_empty() {
                    schema["required"] = json!(required);
                }
                return Some(schema);
            }
            self.expect(' ')?;
        }
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_schemas() {
        let check = |text: &str, expected: Value| assert_eq!(schema(text), Some(expected), "{text}");
        check("s", json!({"type": "string"}));
        check("[@Key]", json!({"type": "array", "items": {"$ref": "#/components/schemas/Key"}}));
        check(
            "{{i}}",
            json!({"type": "object", "additionalProperties": {"type": "object", "additionalProperties": {"type": "integer"}}}),
        );
        check("t~", json!({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}));
        check(
            "(name tags?:[s] kind:<|a|b>)",
            json!({"type": "object", "required": ["name", "kind"], "properties": {
                "name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}},
                "kind": {"type": "string", "enum": ["", "a", "b"]},
            }}),
        );
        for broken in ["", "x", "[s", "(a:q)", "s s", "(a,b)", "<a"] {
            assert_eq!(schema(broken), None, "{broken}");
        }
    }

    #[test]
    fn routes_are_read_with_their_answers() {
        let (types, docs) = read(
            "# no\n@A (x)\n\nPOST chat 200 Say it\n?(a b:i)\n<?(m)\n>@A\n>text/plain\n+202 Waits\nGET /x 204 None\n",
        );
        assert_eq!(types, [("A", "(x)")]);
        let doc = &docs[0];
        assert_eq!((doc.method, doc.path.as_str(), doc.summary), ("POST", "/api/v1/chat", "Say it"));
        assert_eq!((doc.query, doc.body, doc.body_is_optional), ("(a b:i)", "(m)", true));
        assert_eq!(doc.answers[0].bodies, ["@A", "text/plain"]);
        assert_eq!((doc.answers[1].status, doc.answers[1].summary), ("202", "Waits"));
        assert_eq!((docs[1].path.as_str(), docs[1].answers[0].bodies.len()), ("/x", 0));
    }
}
