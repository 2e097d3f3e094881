//! Text directives of old releases: blocks such as `[MEMORY_UPDATE]…[/MEMORY_UPDATE]` in a model's answer. They are cut
//! out of what users see and never acted upon (decisions, row "text directives"): tools do that now.

const NAMES: [&str; 6] =
    ["MEMORY_UPDATE", "USER_UPDATE", "SOUL_UPDATE", "IDENTITY_UPDATE", "SKILL_CREATE", "SCHEDULE_ADD"];

/// Cuts directives out of a text that comes in pieces. Text that may be the beginning of one is held back until it is
/// clear.
#[derive(Default)]
pub struct DirectiveFilter {
    held: String,
    /// The closing tag that is waited for, and from where on.
    open: Option<(&'static str, usize)>,
    /// No end of these follows.
    lone: Vec<&'static str>,
}

impl DirectiveFilter {
    /// What can be shown after one more piece.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let mut shown = String::new();
        loop {
            if let Some((name, from)) = self.open {
                let closing = format!("[/{name}]");
                let Some(at) = self.held[from..].find(&closing) else {
                    // The tag may have come in part.
                    let back = self.held.len().saturating_sub(closing.len());
                    self.open = Some((name, crate::rt::text::cut(&self.held, back.max(from)).len().max(from)));
                    return shown;
                };
                self.held.drain(..from + at + closing.len());
                self.open = None;
                continue;
            }
            let Some(at) = self.held.find('[') else {
                shown.push_str(&self.held);
                self.held.clear();
                return shown;
            };
            shown.extend(self.held.drain(..at));
            let inside = &self.held[1..];
            let mut names = NAMES.into_iter().filter(|name| !self.lone.contains(name));
            let is_open = |name: &&str| inside.strip_prefix(*name).is_some_and(|rest| rest.starts_with(']'));
            if let Some(name) = names.clone().find(is_open) {
                self.open = Some((name, name.len() + 2));
            } else if names.any(|name| name.starts_with(inside)) {
                return shown;
            } else {
                shown.push('[');
                self.held.drain(..1);
            }
        }
    }

    /// What was held back and is no directive: an opening tag without its end is left alone.
    pub fn finish(&mut self) -> String {
        let mut shown = String::new();
        // Behind a lone tag there may be whole ones of other kinds.
        while let Some((name, _)) = self.open.take() {
            self.lone.push(name);
            shown.extend(self.held.drain(..name.len() + 2));
            shown.push_str(&self.push(""));
        }
        shown.push_str(&std::mem::take(&mut self.held));
        self.lone.clear();
        shown
    }

    /// Bytes that are held back now.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }
}

/// A text without directives; trimmed where one was cut out.
pub fn strip(text: &str) -> String {
    let mut filter = DirectiveFilter::default();
    let mut shown = filter.push(text);
    shown.push_str(&filter.finish());
    if shown.len() == text.len() { shown } else { shown.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_cut_out_and_nothing_else_is() {
        let check = |text: &str, expected: &str| {
            assert_eq!(strip(text), expected, "{text}");
            // However it is cut into pieces.
            for size in 1..6 {
                let mut filter = DirectiveFilter::default();
                let letters: Vec<char> = text.chars().collect();
                let mut shown: String =
                    letters.chunks(size).map(|piece| filter.push(&piece.iter().collect::<String>())).collect();
                shown.push_str(&filter.finish());
                assert_eq!(shown.trim(), expected.trim(), "{text} by {size}");
            }
        };
        check("plain [link](x) [[a]] [", "plain [link](x) [[a]] [");
        check("before [MEMORY_UPDATE]new[/MEMORY_UPDATE] after", "before  after");
        check("[SOUL_UPDATE]a\n[USER_UPDATE]b[/USER_UPDATE]\n[/SOUL_UPDATE]", "");
        check("é[USER_UPDATE]üü[/USER_UPDATE]é[SKILL_CREATE]x[/SKILL_CREATE]", "éé");
        check("a [MEMORY_UPDATE] no end", "a [MEMORY_UPDATE] no end");
        check("[MEMORY_UPDATE] no end [USER_UPDATE]x[/USER_UPDATE]!", "[MEMORY_UPDATE] no end !");
        check("[MEMORY_UPDATED] [/MEMORY_UPDATE] [memory_update]", "[MEMORY_UPDATED] [/MEMORY_UPDATE] [memory_update]");
        check(&"[MEMORY_UPDATE]".repeat(50), &"[MEMORY_UPDATE]".repeat(50));
        check("[MEMORY_UP", "[MEMORY_UP");
        check("  kept as it is  ", "  kept as it is  ");
    }
}
