//! The text format of Prometheus, version 0.0.4.

use super::BOUNDS;

/// A page of figures.
#[derive(Default)]
pub struct Page {
    out: String,
    /// The family that samples belong to.
    name: &'static str,
}

impl Page {
    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.out.push_str(part);
        }
    }

    /// A family of one figure without labels.
    pub fn single(&mut self, name: &'static str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A figure of the family that was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, "", value);
    }

    /// A histogram of that family: counts of each bucket alone.
    pub fn histogram(&mut self, labels: &[(&str, &str)], counts: &[u64], sum: f64) {
        let mut total = 0;
        for (index, count) in counts.iter().enumerate() {
            total += count;
            let bound = BOUNDS.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            self.line("_bucket", labels, &bound, float(total));
        }
        self.line("_sum", labels, "", sum);
        self.line("_count", labels, "", float(total));
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.out
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: &str, value: f64) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let bound = Some(("le", bound)).filter(|(_, bound)| !bound.is_empty());
        for (index, (name, text)) in labels.iter().copied().chain(bound).enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() || bound.is_some() {
            self.out.push('}');
        }
        self.out.push(' ');
        self.out.push_str(&value.to_string());
        self.out.push('\n');
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 do not come")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.family("a", "gauge", "Help");
        page.sample(&[("l", "a\"b\\c\nd")], 1e21);
        page.single("b", "gauge", "Help", 0.5);
        assert_eq!(
            page.finish(),
            "# HELP a Help\n# TYPE a gauge\na{l=\"a\\\"b\\\\c\\nd\"} 1000000000000000000000\n\
             # HELP b Help\n# TYPE b gauge\nb 0.5\n"
        );
    }
}
