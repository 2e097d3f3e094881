//! Header lines: names and values in order, without a copy for each.

/// The header lines of a request, in order, as spans of its bytes.
#[derive(Default)]
pub struct Headers {
    bytes: Vec<u8>,
    spans: Vec<[u32; 4]>,
}

impl Headers {
    /// Headers whose names and values are byte ranges of `bytes`: name from, to, value from, to.
    pub(crate) fn from_spans(bytes: Vec<u8>, spans: Vec<[u32; 4]>) -> Self {
        Self { bytes, spans }
    }

    /// Headers from pairs, for requests that never were on a wire.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let mut headers = Self::default();
        for (name, value) in pairs {
            let mut push = |text: &str| {
                let from = u32::try_from(headers.bytes.len()).unwrap_or(u32::MAX);
                headers.bytes.extend_from_slice(text.as_bytes());
                (from, u32::try_from(headers.bytes.len()).unwrap_or(u32::MAX))
            };
            let (name_from, name_to) = push(name);
            let (value_from, value_to) = push(value);
            headers.spans.push([name_from, name_to, value_from, value_to]);
        }
        headers
    }

    /// Name and value of each line; a value that is not UTF-8 is left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().filter_map(|span| Some((self.text(span[0], span[1])?, self.text(span[2], span[3])?)))
    }

    /// The first value under that name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.spans
            .iter()
            .find(|span| self.text(span[0], span[1]).is_some_and(|found| found.eq_ignore_ascii_case(name)))
            .and_then(|span| self.text(span[2], span[3]))
    }

    /// Whether a line has that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether a comma-separated list under that name holds `token`, whatever its case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .any(|(_, value)| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    }

    /// A cookie's value.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.iter().filter(|(found, _)| found.eq_ignore_ascii_case("cookie")).find_map(|(_, value)| {
            let mut pairs = value.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        })
    }

    /// Gives the bytes back for the next request.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn text(&self, from: u32, to: u32) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(from as usize..to as usize)?).ok()
    }
}
