//! `web_search` (contract engine 8.7): DuckDuckGo, Tavily, or a SearXNG of one's own.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::download::{refused, timeouts};
use super::html::{Token, Tokens, attribute};
use super::{charset, entities};
use crate::config::{SearchConfig, SearchProvider};
use crate::limits;
use crate::llm::ToolSpec;
use crate::net::guard::{Guard, Origin};
use crate::net::url::Url;
use crate::net::{Call, HttpClient, NetError};
use crate::rt::text::cut;
use crate::tools::arguments::{Arguments, object};
use crate::tools::{Tool, ToolContext, ToolError};

/// Contract engine 8.7.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Contract engine 8.7.
const RESULTS_ASKED_MAX: usize = 10;
const BYTES_MAX: usize = 1024 * 1024;
const TITLE_BYTES_MAX: usize = 200;
const SNIPPET_BYTES_MAX: usize = 500;
/// DuckDuckGo answers unknown programs with a puzzle.
const USER_AGENT: &str = concat!("Mozilla/5.0 (compatible; Holt/", env!("CARGO_PKG_VERSION"), ")");

/// Searches.
pub(super) struct WebSearch {
    spec: ToolSpec,
    config: SearchConfig,
}

/// One hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hit {
    title: String,
    url: String,
    snippet: String,
}

impl WebSearch {
    pub(super) fn new(config: &SearchConfig) -> Self {
        Self {
            spec: ToolSpec {
                name: "web_search".to_owned(),
                description: "Searches the web and returns titles, addresses and short extracts; web_fetch reads a \
                    page that was found."
                    .to_owned(),
                parameters: object(
                    &json!({
                        "query": {"type": "string", "description": "what to look for"},
                        "max_results": {"type": "integer", "minimum": 1, "maximum": RESULTS_ASKED_MAX,
                            "description": "how many results; 5 when left out"},
                    }),
                    &["query"],
                ),
            },
            config: config.clone(),
        }
    }

    fn search(&self, query: &str, count: usize, line: &Line<'_>) -> Result<Vec<Hit>, ToolError> {
        let base = |public: &str| self.config.base_url.clone().unwrap_or_else(|| public.to_owned());
        let key = self.config.api_key.as_deref();
        let query_escaped = escape(query);
        match self.config.provider {
            SearchProvider::DuckDuckGo => {
                let lite = format!("{}/lite/?q={query_escaped}", base("https://lite.duckduckgo.com"));
                let found = line.get(&lite, None).map(|body| lite_hits(&charset::decode(&body, "", true)));
                match found {
                    Ok(hits) if !hits.is_empty() => Ok(hits),
                    // The page is meant for people; the other one knows less, but is meant for programs.
                    earlier => {
                        let url = format!(
                            "{}/?q={query_escaped}&format=json&no_html=1&skip_disambig=1",
                            base("https://api.duckduckgo.com")
                        );
                        match line.get(&url, None).and_then(|body| parsed(&body)) {
                            Ok(answer) => Ok(instant_hits(&answer)),
                            Err(error) => earlier.and(Err(error)),
                        }
                    }
                }
            }
            SearchProvider::Tavily => {
                let url = format!("{}/search", base("https://api.tavily.com"));
                let body = json!({"query": query, "max_results": count}).to_string();
                let answer = parsed(&line.post(&url, body.as_bytes(), key)?)?;
                Ok(listed_hits(&answer))
            }
            SearchProvider::Searxng => {
                let url = format!("{}/search?q={query_escaped}&format=json", base(""));
                Ok(listed_hits(&parsed(&line.get(&url, key)?)?))
            }
        }
    }
}

impl Tool for WebSearch {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        false
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let arguments = Arguments::of(arguments, &["query", "max_results"])?;
        let query = arguments.text("query")?;
        let default = self.config.results.min(RESULTS_ASKED_MAX);
        let count = arguments.number("max_results", default, 1, limits::SEARCH_RESULTS_MAX)?.min(RESULTS_ASKED_MAX);
        let line = Line { context, deadline: context.deadline.min(Instant::now() + TIMEOUT) };
        let hits = self.search(query, count, &line)?;
        let results: Vec<Value> = hits
            .iter()
            .take(count)
            .map(|hit| {
                json!({
                    "title": cut(&hit.title, TITLE_BYTES_MAX), "url": hit.url,
                    "snippet": cut(&hit.snippet, SNIPPET_BYTES_MAX),
                })
            })
            .collect();
        let provider = match self.config.provider {
            SearchProvider::DuckDuckGo => "duckduckgo",
            SearchProvider::Tavily => "tavily",
            SearchProvider::Searxng => "searxng",
        };
        Ok(json!({"provider": provider, "result_count": results.len(), "results": results}).to_string())
    }
}

/// Calls of the search service, of which an operator decided.
struct Line<'a> {
    context: &'a ToolContext<'a>,
    deadline: Instant,
}

impl Line<'_> {
    fn get(&self, url: &str, key: Option<&str>) -> Result<Vec<u8>, ToolError> {
        self.send(Call::get(url), url, key)
    }

    fn post(&self, url: &str, body: &[u8], key: Option<&str>) -> Result<Vec<u8>, ToolError> {
        self.send(Call::post(url, body), url, key)
    }

    fn send<'b>(&self, call: Call<'b>, url: &'b str, key: Option<&str>) -> Result<Vec<u8>, ToolError> {
        let guard = Guard::new(Origin::Operator { allow_loopback: true });
        let checked = guard.check_url(url).map_err(|error| refused(&error))?;
        let client = HttpClient::new(timeouts(self.deadline)?).with_filter(checked.filter()).without_reuse();
        let bearer = key.map(|key| format!("Bearer {key}"));
        let mut call = call.header("user-agent", USER_AGENT).header("accept", "text/html, application/json");
        if let Some(bearer) = &bearer {
            call = call.header("authorization", bearer);
        }
        let failed = |error: NetError| match error {
            NetError::Cancelled => ToolError::new("cancelled"),
            NetError::Timeout { .. } => ToolError::new("the search service did not answer in time"),
            other => ToolError::new(format!("the search service cannot be asked: {other}")),
        };
        let mut answer = client.send(&call, self.context.cancel).map_err(failed)?;
        match answer.status() {
            200 => answer.body(BYTES_MAX).map_err(failed),
            202 => {
                Err(ToolError::new("the search service takes this for a robot and wants a puzzle solved; try later"))
            }
            401 | 403 => Err(ToolError::new(
                "the search service refuses (wrong web.search.api_key? a SearXNG must list json under search.formats)",
            )),
            429 => Err(ToolError::new("the search service says that it was asked too often; try later")),
            status => Err(ToolError::new(format!("the search service answered with HTTP status {status}"))),
        }
    }
}

fn parsed(body: &[u8]) -> Result<Value, ToolError> {
    serde_json::from_slice(body).map_err(|_| ToolError::new("the search service did not answer with JSON"))
}

/// `results` as Tavily and SearXNG give them.
fn listed_hits(answer: &Value) -> Vec<Hit> {
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |hit: &Value, key: &str| plain(hit[key].as_str().unwrap_or(""));
    let hits = results.iter().map(|hit| Hit {
        title: text(hit, "title"),
        url: hit["url"].as_str().unwrap_or("").to_owned(),
        snippet: text(hit, "content"),
    });
    hits.filter_map(usable).collect()
}

/// The instant answer and its related topics, one level deep.
fn instant_hits(answer: &Value) -> Vec<Hit> {
    let text = |value: &Value| plain(value.as_str().unwrap_or(""));
    let mut hits = vec![Hit {
        title: text(&answer["Heading"]),
        url: answer["AbstractURL"].as_str().unwrap_or("").to_owned(),
        snippet: text(&answer["AbstractText"]),
    }];
    for list in ["Results", "RelatedTopics"] {
        for topic in answer[list].as_array().map(Vec::as_slice).unwrap_or_default() {
            let snippet = text(&topic["Text"]);
            let title = snippet.split(" - ").next().unwrap_or("").to_owned();
            hits.push(Hit { title, url: topic["FirstURL"].as_str().unwrap_or("").to_owned(), snippet });
        }
    }
    hits.into_iter().filter_map(usable).collect()
}

/// The hits of DuckDuckGo's page for simple browsers: links of class `result-link`, texts of class `result-snippet`.
fn lite_hits(html: &str) -> Vec<Hit> {
    #[derive(PartialEq)]
    enum Inside {
        Nothing,
        Title,
        Snippet,
    }
    let mut hits: Vec<Hit> = Vec::new();
    let mut inside = Inside::Nothing;
    for token in Tokens::new(html) {
        match token {
            Token::Open(name, attributes) => {
                let class = attribute(attributes, "class").unwrap_or_default();
                if name == "a" && class.contains("result-link") {
                    let url = target(&attribute(attributes, "href").unwrap_or_default());
                    hits.push(Hit { url, ..Hit::default() });
                    inside = Inside::Title;
                } else if name == "td" && class.contains("result-snippet") {
                    inside = Inside::Snippet;
                }
            }
            Token::Close(name) if name == "a" && inside == Inside::Title => inside = Inside::Nothing,
            Token::Close(name) if name == "td" => inside = Inside::Nothing,
            Token::Text(text) => match (&inside, hits.last_mut()) {
                (Inside::Title, Some(hit)) => hit.title.push_str(&entities::decode(text)),
                (Inside::Snippet, Some(hit)) => hit.snippet.push_str(&entities::decode(text)),
                _ => {}
            },
            Token::Close(_) => {}
        }
    }
    hits.into_iter()
        .map(|hit| Hit { title: plain(&hit.title), snippet: plain(&hit.snippet), url: hit.url })
        .filter_map(usable)
        .collect()
}

/// Where a link of a result page leads: `//duckduckgo.com/l/?uddg=<address>&rut=...`, or straight away.
fn target(href: &str) -> String {
    let inner = href.split(['?', '&']).find_map(|pair| pair.strip_prefix("uddg="));
    inner.map_or_else(|| href.to_owned(), unescape)
}

/// A hit with an address that can be fetched; advertisements go through the service itself.
fn usable(mut hit: Hit) -> Option<Hit> {
    let url = Url::parse(&hit.url).ok()?;
    if url.text().contains("duckduckgo.com/y.js") {
        return None;
    }
    hit.url = url.text();
    Some(hit)
}

/// On one line, without control characters.
fn plain(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let digits = text.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_result_page_is_understood() {
        let html = "<table><tr><td>1.</td><td><a rel=\"nofollow\" \
            href=\"//duckduckgo.com/l/?uddg=https%3A%2F%2Fexample.com%2Fa%3Fb%3D1%26c&amp;rut=abc\" \
            class='result-link'>The <b>Example</b> &amp; more</a></td></tr>\
            <tr><td></td><td class='result-snippet'>\n Some <b>bold</b>\n text </td></tr>\
            <tr><td><a class='result-link' href='https://duckduckgo.com/y.js?ad=1'>Ad</a></td></tr>\
            <tr><td class='result-snippet'>buy</td></tr>\
            <tr><td><a class='result-link' href='javascript:x'>Bad</a></td></tr>\
            <tr><td><a class='result-link' href='http://plain.example'>Plain</a></td></tr></table>";
        let hits = lite_hits(html);
        assert_eq!(hits.len(), 2, "{hits:?}");
        assert_eq!(hits[0].url, "https://example.com/a?b=1&c");
        assert_eq!((hits[0].title.as_str(), hits[0].snippet.as_str()), ("The Example & more", "Some bold text"));
        assert_eq!((hits[1].title.as_str(), hits[1].snippet.as_str()), ("Plain", ""));
        assert!(lite_hits("<html>no results</html>").is_empty());
    }

    #[test]
    fn answers_in_json_are_understood() {
        let found = listed_hits(&json!({"results": [
            {"title": "A\nB", "url": "https://a.example/", "content": "c"}, {"title": "x"}, 5, null]}));
        assert_eq!(found, [Hit { title: "A B".into(), url: "https://a.example/".into(), snippet: "c".into() }]);
        assert!(listed_hits(&json!("no")).is_empty() && listed_hits(&json!({"results": 1})).is_empty());
        let found = instant_hits(&json!({"Heading": "H", "AbstractURL": "https://h.example/", "AbstractText": "T",
            "RelatedTopics": [{"Text": "One - first", "FirstURL": "https://o.example/"}, {"Topics": []}]}));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].title, "One");
    }

    #[test]
    fn escaping_goes_both_ways() {
        assert_eq!(escape("a b&c=ä/?"), "a%20b%26c%3D%C3%A4%2F%3F");
        assert_eq!(unescape("a%20b%26%C3%A4%zz%"), "a b&ä%zz%");
    }
}
