//! HTML taken apart: text, opening and closing tags. Tolerant of everything, one pass, no tree.

use super::entities;

/// A piece of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// As it stands, references not resolved.
    Text(&'a str),
    /// Name in lower case, and the source of the attributes.
    Open(String, &'a str),
    Close(String),
}

/// Elements whose content is not HTML.
const RAW: &[&str] = &["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"];
/// Longer names are no HTML.
const NAME_BYTES_MAX: usize = 32;

/// What a `<` turned out to be.
enum Markup<'a> {
    Tag(Token<'a>),
    /// A comment or a declaration.
    Nothing,
    /// Only a character.
    Text,
}

/// Walks over a page. The work is linear in its length, whatever is in it.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    /// The name of the raw element that has just begun.
    raw: Option<&'static str>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(html: &'a str) -> Self {
        Self { rest: html, raw: None }
    }

    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    /// Everything up to the closing tag of a raw element; without one, everything.
    fn raw_text(&mut self, name: &str) -> &'a str {
        let bytes = self.rest.as_bytes();
        let is_end = |at: usize| {
            let tag = &bytes[at + 2..];
            tag.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
                && tag.get(name.len()).is_none_or(|byte| !byte.is_ascii_alphanumeric())
        };
        let mut from = 0;
        while let Some(found) = self.rest[from..].find("</") {
            if is_end(from + found) {
                return self.take(from + found);
            }
            from += found + 2;
        }
        self.take(bytes.len())
    }

    /// What begins with `<`.
    fn markup(&mut self) -> Markup<'a> {
        if let Some(comment) = self.rest.strip_prefix("<!--") {
            let empty = [">", "->"].into_iter().find(|end| comment.starts_with(end)).map(|end| 4 + end.len());
            let end = empty.or_else(|| comment.find("-->").map(|at| at + 7)).unwrap_or(self.rest.len());
            self.take(end);
            return Markup::Nothing;
        }
        let Some(&second) = self.rest.as_bytes().get(1) else { return Markup::Text };
        if second == b'!' || second == b'?' {
            let end = self.rest.find('>').map_or(self.rest.len(), |at| at + 1);
            self.take(end);
            return Markup::Nothing;
        }
        let closing = second == b'/';
        let start = if closing { 2 } else { 1 };
        if !self.rest.as_bytes().get(start).is_some_and(u8::is_ascii_alphabetic) {
            return Markup::Text;
        }
        let inside = &self.rest[start..];
        let name_len =
            inside.bytes().position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/')).unwrap_or(inside.len());
        let mut name = inside[..name_len].to_ascii_lowercase();
        name.truncate(if name.len() > NAME_BYTES_MAX { 0 } else { name.len() });
        let end = end_of_tag(&inside[name_len..]);
        let attributes = &inside[name_len..name_len + end.unwrap_or(inside.len() - name_len)];
        self.take(end.map_or(self.rest.len(), |end| start + name_len + end + 1));
        if closing {
            return Markup::Tag(Token::Close(name));
        }
        self.raw = RAW.iter().copied().find(|raw| *raw == name);
        Markup::Tag(Token::Open(name, attributes))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some(name) = self.raw.take() {
            let text = self.raw_text(name);
            if !text.is_empty() {
                return Some(Token::Text(text));
            }
        }
        while !self.rest.is_empty() {
            if self.rest.starts_with('<') {
                match self.markup() {
                    Markup::Tag(token) => return Some(token),
                    Markup::Nothing => continue,
                    Markup::Text => {}
                }
                // A lone `<` is text, with what follows it.
                let len = self.rest[1..].find('<').map_or(self.rest.len(), |at| at + 1);
                return Some(Token::Text(self.take(len)));
            }
            let len = self.rest.find('<').unwrap_or(self.rest.len());
            return Some(Token::Text(self.take(len)));
        }
        None
    }
}

/// Where the `>` of a tag stands that is not inside quotes.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut before = b' ';
    for (index, byte) in text.bytes().enumerate() {
        match quote {
            Some(mark) if byte == mark => quote = None,
            Some(_) => {}
            None if byte == b'>' => return Some(index),
            // Only behind `=`: an apostrophe elsewhere is a mistake, not a quote.
            None if (byte == b'"' || byte == b'\'') && before == b'=' => quote = Some(byte),
            None => {}
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    None
}

/// The value of an attribute, references resolved; empty for one without a value.
pub(super) fn attribute(attributes: &str, wanted: &str) -> Option<String> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return None;
        }
        // The first character belongs to the name even if it is `=`.
        let mut inside = rest.char_indices().skip(1);
        let end = inside.find(|(_, c)| c.is_ascii_whitespace() || matches!(c, '=' | '/'));
        let name_len = end.map_or(rest.len(), |(at, _)| at);
        let (name, after) = rest.split_at(name_len);
        let (value, behind) = match after.trim_ascii_start().strip_prefix('=') {
            None => ("", after),
            Some(after) => value_of(after.trim_ascii_start()),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(entities::decode(value));
        }
        rest = behind;
    }
}

fn value_of(text: &str) -> (&str, &str) {
    if let Some(mark) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inside = &text[1..];
        return inside.split_once(mark).unwrap_or((inside, ""));
    }
    text.split_at(text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(html: &str) -> String {
        let piece = |token: Token<'_>| match token {
            Token::Text(text) => format!("[{text}]"),
            Token::Open(name, _) => format!("<{name}>"),
            Token::Close(name) => format!("</{name}>"),
        };
        Tokens::new(html).map(piece).collect()
    }

    #[test]
    fn pages_are_taken_apart() {
        for (html, expected) in [
            ("<P CLASS=x>Hi</P>", "<p>[Hi]</p>"),
            ("a<br/>b<hr / >", "[a]<br>[b]<hr>"),
            ("<!doctype html><!-- <b> --><?xml x?><b>", "<b>"),
            ("a<!-- never ends <b>", "[a]"),
            ("<!--><b><!---><i>", "<b><i>"),
            ("<a href='x>y'>z</a>", "<a>[z]</a>"),
            ("<a title=it's>z", "<a>[z]"),
            ("1 < 2 <3 & <", "[1 ][< 2 ][<3 & ][<]"),
            ("<script>if (a<b) '</scr' </SCRIPT >x", "<script>[if (a<b) '</scr' ]</script>[x]"),
            ("<style>x", "<style>[x]"),
            ("<script></script>", "<script></script>"),
            ("<title>A &amp; <b></title>", "<title>[A &amp; <b>]</title>"),
            ("<b", "<b>"),
            ("</", "[</]"),
            ("<a href=\"never closed>x</a>", "<a>"),
            ("<ä>", "[<ä>]"),
            ("", ""),
        ] {
            assert_eq!(shown(html), expected, "{html}");
        }
    }

    #[test]
    fn attributes_are_found() {
        for (attributes, wanted, expected) in [
            (" href=\"a&amp;b\" x", "href", Some("a&b")),
            (" HREF = 'a b' ", "href", Some("a b")),
            (" href=a/b/ class=c", "href", Some("a/b/")),
            (" data-href=x href", "href", Some("")),
            (" x='href=no' y", "href", None),
            ("/ / =x ü='1' href=z", "href", Some("z")),
            (" href=\"open", "href", Some("open")),
            ("", "href", None),
        ] {
            assert_eq!(attribute(attributes, wanted).as_deref(), expected, "{attributes}");
        }
    }
}
