//! From HTML to Markdown that a model can read: headings, lists, links, code, tables. Roughly, and never failing.

use std::fmt::Write as _;

use super::entities;
use super::html::{Token, Tokens, attribute};
use crate::net::url::Url;

/// Neither read by people nor worth a model's attention.
const SKIPPED: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "iframe", "noembed", "noframes", "object", "canvas", "nav",
    "select", "button", "textarea", "dialog", "math",
];
/// Begin and end a paragraph.
const PARAGRAPHS: &[&str] =
    &["p", "blockquote", "dl", "figure", "details", "fieldset", "h1", "h2", "h3", "h4", "h5", "h6"];
/// Begin and end a line.
const LINES: &[&str] = &[
    "div",
    "section",
    "article",
    "main",
    "header",
    "footer",
    "aside",
    "address",
    "dt",
    "dd",
    "figcaption",
    "summary",
    "form",
    "option",
    "center",
    "caption",
    "tbody",
    "thead",
    "tfoot",
    "body",
    "html",
];
/// `<main>` counts as the page only if there is something in it.
const MAIN_BYTES_MIN: usize = 200;
/// Deeper tables are only text: each table is looked at once more when it ends.
const TABLES_MAX: usize = 4;
const LISTS_MAX: usize = 16;
const QUOTES_MAX: usize = 8;
/// What all link targets of a page may take together: a short link below a long address is long when it is resolved.
const TARGETS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Between cells and rows until a table ends. Control characters of the page itself are removed before.
const CELL: char = '\u{1}';
const ROW: char = '\u{2}';

/// A page in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) text: String,
}

/// Converts a page; links are resolved against `base`.
pub(super) fn convert(html: &str, base: Option<&Url>) -> Page {
    let mut writer = Writer { base, ..Writer::default() };
    for token in Tokens::new(html) {
        match token {
            Token::Text(text) => writer.text(text),
            Token::Open(name, attributes) => writer.open(&name, attributes),
            Token::Close(name) => writer.close(&name),
        }
    }
    writer.finish()
}

#[derive(Default)]
struct Writer<'a> {
    base: Option<&'a Url>,
    title: Option<String>,
    in_title: bool,
    out: String,
    /// Line ends that are due before the next text: 1 a new line, 2 a new paragraph.
    breaks: u8,
    /// A blank is due before the next text of this line.
    blank: bool,
    /// The element whose content is skipped, and how deep we are in others of its name.
    skipped: Option<(&'static str, usize)>,
    pre: usize,
    quotes: usize,
    /// One for each list: the number of the next item; None for bullets.
    lists: Vec<Option<usize>>,
    /// Where the text of the open link begins, and where it leads.
    link: Option<(usize, String)>,
    targets_bytes: usize,
    /// Where each open table begins, and whether it has another one inside.
    tables: Vec<(usize, bool)>,
    /// Begin and end of the content of `<main>`; open while there is no end.
    main: Option<(usize, Option<usize>)>,
}

impl Writer<'_> {
    fn open(&mut self, name: &str, attributes: &str) {
        if let Some((skipped, depth)) = &mut self.skipped {
            *depth += usize::from(*skipped == name);
            return;
        }
        if let Some(skipped) = SKIPPED.iter().copied().find(|skipped| *skipped == name) {
            self.skipped = Some((skipped, 0));
            return;
        }
        match name {
            "title" => self.in_title = true,
            "br" => self.end_line(1),
            "hr" => {
                self.end_line(2);
                self.push("---");
                self.end_line(2);
            }
            "pre" => {
                self.end_line(2);
                self.push("```\n");
                self.pre += 1;
            }
            "code" | "kbd" | "samp" | "tt" if self.pre == 0 => self.mark("`"),
            "b" | "strong" if self.pre == 0 => self.mark("**"),
            "i" | "em" if self.pre == 0 => self.mark("*"),
            "a" => self.open_link(attributes),
            "img" => {
                let alt = attribute(attributes, "alt").unwrap_or_default();
                if !alt.trim().is_empty() {
                    self.words(&format!("[image: {}]", alt.trim()));
                }
            }
            "ul" | "ol" | "menu" => {
                self.end_line(if self.lists.is_empty() { 2 } else { 1 });
                if self.lists.len() < LISTS_MAX {
                    self.lists.push((name == "ol").then_some(1));
                }
            }
            "li" => self.item(),
            "table" => {
                self.end_line(2);
                if let Some((_, nested)) = self.tables.last_mut() {
                    *nested = true;
                }
                if self.tables.len() < TABLES_MAX {
                    self.flush_breaks();
                    self.tables.push((self.out.len(), false));
                }
            }
            "tr" if !self.tables.is_empty() => self.separate(ROW),
            "td" | "th" if !self.tables.is_empty() => self.separate(CELL),
            _ => self.open_block(name),
        }
    }

    fn open_block(&mut self, name: &str) {
        if PARAGRAPHS.contains(&name) {
            self.end_line(2);
            if let Some(level) = name.strip_prefix('h').and_then(|level| level.parse::<usize>().ok()) {
                self.push(&"#".repeat(level));
                self.blank = true;
            }
            if name == "blockquote" {
                self.quotes = (self.quotes + 1).min(QUOTES_MAX);
            }
        } else if LINES.contains(&name) {
            self.end_line(1);
            if name == "main" && self.main.is_none() {
                self.flush_breaks();
                self.main = Some((self.out.len(), None));
            }
        }
    }

    fn close(&mut self, name: &str) {
        if let Some((skipped, depth)) = &mut self.skipped {
            if *skipped == name {
                match depth.checked_sub(1) {
                    Some(less) => *depth = less,
                    None => self.skipped = None,
                }
            }
            return;
        }
        match name {
            "title" => self.in_title = false,
            "pre" if self.pre > 0 => {
                self.pre -= 1;
                if !self.out.ends_with('\n') {
                    self.out.push('\n');
                }
                self.breaks = 0;
                self.push("```");
                self.end_line(2);
            }
            "code" | "kbd" | "samp" | "tt" if self.pre == 0 => self.unmark("`"),
            "b" | "strong" if self.pre == 0 => self.unmark("**"),
            "i" | "em" if self.pre == 0 => self.unmark("*"),
            "a" => self.close_link(),
            "ul" | "ol" | "menu" => {
                self.lists.pop();
                self.end_line(if self.lists.is_empty() { 2 } else { 1 });
            }
            "table" => {
                if let Some((start, nested)) = self.tables.pop() {
                    self.close_table(start, nested);
                }
                self.end_line(2);
            }
            "main" => {
                if let Some((_, end)) = &mut self.main {
                    end.get_or_insert(self.out.len());
                }
                self.end_line(2);
            }
            "blockquote" => {
                self.end_line(2);
                self.quotes = self.quotes.saturating_sub(1);
            }
            _ if PARAGRAPHS.contains(&name) => self.end_line(2),
            _ if LINES.contains(&name) => self.end_line(1),
            _ => {}
        }
    }

    fn text(&mut self, source: &str) {
        if self.skipped.is_some() {
            return;
        }
        let text: String =
            entities::decode(source).chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        if self.in_title {
            let title = self.title.get_or_insert_default();
            title.push_str(&text);
        } else if self.pre > 0 {
            self.flush_breaks();
            self.out.push_str(&text);
        } else {
            self.words(&text);
        }
    }

    /// Text of a line: blanks and line ends become one blank.
    fn words(&mut self, text: &str) {
        let is_blank = |c: char| c.is_whitespace();
        if text.starts_with(is_blank) {
            self.blank = true;
        }
        for (index, word) in text.split(is_blank).filter(|word| !word.is_empty()).enumerate() {
            self.blank |= index > 0;
            self.push(word);
        }
        self.blank |= text.ends_with(is_blank) && !text.trim().is_empty();
    }

    /// Writes behind what is due.
    fn push(&mut self, text: &str) {
        self.flush_breaks();
        if self.blank && !self.out.is_empty() && !self.out.ends_with(['\n', ' ', CELL, ROW]) {
            self.out.push(' ');
        }
        self.blank = false;
        self.out.push_str(text);
    }

    fn end_line(&mut self, breaks: u8) {
        self.breaks = self.breaks.max(breaks);
        self.blank = false;
    }

    fn flush_breaks(&mut self) {
        if self.breaks > 0 && !self.out.ends_with(CELL) {
            let breaks = if self.out.is_empty() { 0 } else { self.breaks };
            self.out.extend(std::iter::repeat_n('\n', usize::from(breaks)));
            self.out.extend(std::iter::repeat_n("> ", self.quotes));
            self.blank = false;
        }
        self.breaks = 0;
    }

    /// An opening mark; the blank before it is written, so that `a <b>b</b>` stays two words.
    fn mark(&mut self, mark: &str) {
        self.push(mark);
    }

    /// The closing mark; around nothing, the opening one goes.
    fn unmark(&mut self, mark: &str) {
        if self.out.ends_with(mark) && !self.out.ends_with("```") {
            self.shorten(self.out.len() - mark.len());
        } else if self.breaks == 0 {
            let blank = std::mem::take(&mut self.blank);
            self.out.push_str(mark);
            self.blank = blank;
        } else {
            self.out.push_str(mark);
        }
    }

    fn item(&mut self) {
        self.end_line(1);
        let depth = self.lists.len().saturating_sub(1);
        let bullet = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "- ".to_owned(),
        };
        self.push(&format!("{}{bullet}", "  ".repeat(depth)));
        self.blank = false;
    }

    fn open_link(&mut self, attributes: &str) {
        self.close_link();
        if self.targets_bytes >= TARGETS_BYTES_MAX {
            return;
        }
        let href = attribute(attributes, "href").unwrap_or_default();
        let target = match self.base {
            // Another place on the same page is of no use to a reader of text.
            _ if href.trim().is_empty() || href.trim_start().starts_with('#') => None,
            Some(base) => base.join(&href).ok().map(|url| url.text()),
            None => Some(href),
        };
        if let Some(target) = target {
            // What is due comes before the bracket.
            self.push("");
            self.targets_bytes += target.len();
            self.link = Some((self.out.len(), target));
        }
    }

    fn close_link(&mut self) {
        let Some((start, target)) = self.link.take() else { return };
        // Positions are kept inside the text by `shorten`; a wrong one costs the link, not the page.
        let Some(text) = self.out.get(start..) else { return };
        let label = text.split_whitespace().collect::<Vec<_>>().join(" ").replace([CELL, ROW], "");
        if label.is_empty() {
            return;
        }
        self.shorten(start);
        // Writing into a String does not fail, here and below.
        let _ = write!(self.out, "[{label}]({target})");
    }

    fn separate(&mut self, mark: char) {
        self.close_link();
        self.breaks = 0;
        self.blank = false;
        self.out.push(mark);
    }

    /// Rewrites a table: as one where it is a table of data, else as lines.
    fn close_table(&mut self, start: usize, nested: bool) {
        self.close_link();
        self.breaks = 0;
        let Some(source) = self.out.get(start..).map(str::to_owned) else { return };
        self.shorten(start);
        let mut rows: Vec<Vec<&str>> = source
            .split(ROW)
            .map(|row| row.split(CELL).map(str::trim).skip(usize::from(row.contains(CELL))).collect())
            .collect();
        rows.retain(|row: &Vec<&str>| row.iter().any(|cell| !cell.is_empty()));
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let is_data = !nested && columns > 1 && rows.len() > 1;
        for (index, row) in rows.iter().enumerate() {
            if is_data {
                let cell = |cell: &&str| cell.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
                let cells: Vec<String> = row.iter().map(cell).collect();
                let _ = write!(self.out, "| {} |", cells.join(" | "));
                if index == 0 {
                    self.out.push_str("\n|");
                    self.out.push_str(&" --- |".repeat(columns));
                }
            } else {
                let cells: Vec<&str> = row.iter().copied().filter(|cell| !cell.is_empty()).collect();
                let lines = cells.iter().any(|cell| cell.contains('\n'));
                self.out.push_str(&cells.join(if lines { "\n" } else { " " }));
            }
            if index + 1 < rows.len() {
                self.out.push('\n');
            }
        }
    }

    /// Cuts the text, and with it every place that is remembered in it: tags may be nested in any wrong way, and what
    /// is written next need not have a character begin where the old text had one.
    fn shorten(&mut self, len: usize) {
        self.out.truncate(len);
        if let Some((start, _)) = &mut self.link {
            *start = len.min(*start);
        }
        for (start, _) in &mut self.tables {
            *start = len.min(*start);
        }
        if let Some((start, end)) = &mut self.main {
            *start = len.min(*start);
            *end = end.map(|end| len.min(end));
        }
    }

    fn finish(mut self) -> Page {
        self.close_link();
        while let Some((start, nested)) = self.tables.pop() {
            self.close_table(start, nested);
        }
        let main = self.main.and_then(|(start, end)| self.out.get(start..end.unwrap_or(self.out.len())));
        let text = main.filter(|text| text.len() >= MAIN_BYTES_MIN).unwrap_or(&self.out);
        let title = self.title.unwrap_or_default();
        Page { title: title.split_whitespace().collect::<Vec<_>>().join(" "), text: tidy(text) }
    }
}

/// Without blanks at line ends and without more than one empty line in a row.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 1;
    for line in text.split('\n').map(str::trim_end) {
        let is_empty = line.is_empty() || line.bytes().all(|byte| matches!(byte, b'>' | b' '));
        empty = if is_empty { empty + 1 } else { 0 };
        if empty < 2 {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out.retain(|c| c != CELL && c != ROW);
    out
}
