//! `[web]`: searching and fetching.

use std::time::Duration;

use super::api::some_text;
use super::check::{given, number, time_above_zero, word};
use super::error::ConfigError;
use super::raw::Typed;
use super::{FetchConfig, SearchConfig, SearchProvider, WebConfig};
use crate::limits;

/// Contract engine 10.2.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Contract engine 10.2.
const FETCH_BYTES_MAX: usize = 5 * 1024 * 1024;
const FETCH_BYTES_LIMIT: usize = 64 * 1024 * 1024;
/// Contract engine 10.2.
const RESULTS: usize = 5;

pub(super) fn web(typed: &mut Typed) -> Result<Option<WebConfig>, ConfigError> {
    let search = search(typed)?;
    let fetch = fetch(typed)?;
    if typed.raw.web.fetch.jina.enabled {
        typed.warnings.push("web.fetch.jina.enabled: pages are read by Holt itself; not used".to_owned());
    }
    Ok((typed.raw.web.enabled != Some(false)).then_some(WebConfig { search, fetch }))
}

fn search(typed: &Typed) -> Result<SearchConfig, ConfigError> {
    let raw = &typed.raw.web.search;
    word(typed, "web.search.provider", &raw.provider, &["", "duckduckgo", "tavily", "searxng"])?;
    let provider = match raw.provider.as_str() {
        "tavily" => SearchProvider::Tavily,
        "searxng" => SearchProvider::Searxng,
        _ => SearchProvider::DuckDuckGo,
    };
    if provider == SearchProvider::Tavily {
        given(typed, "web.search.api_key", &raw.api_key)?;
    }
    let url = raw.base_url.trim().trim_end_matches('/');
    if provider == SearchProvider::Searxng {
        given(typed, "web.search.base_url", url)?;
    }
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if !url.is_empty() && host.is_none_or(|host| host.is_empty() || host.contains('@')) {
        let reason = "must begin with http:// or https:// and name a host, without user name and password";
        return Err(typed.bad("web.search.base_url", reason));
    }
    Ok(SearchConfig {
        provider,
        api_key: some_text(&raw.api_key),
        base_url: some_text(url),
        results: match raw.max_results {
            None => RESULTS,
            Some(results) => number(typed, "web.search.max_results", results, 1, limits::SEARCH_RESULTS_MAX)?,
        },
    })
}

fn fetch(typed: &Typed) -> Result<FetchConfig, ConfigError> {
    let raw = &typed.raw.web.fetch;
    Ok(FetchConfig {
        timeout: time_above_zero(typed, "web.fetch.timeout", raw.timeout.as_deref(), FETCH_TIMEOUT)?,
        bytes_max: match raw.max_size_bytes {
            None => FETCH_BYTES_MAX,
            Some(bytes) => number(typed, "web.fetch.max_size_bytes", bytes, 1024, FETCH_BYTES_LIMIT)?,
        },
        user_agent: match raw.user_agent.trim() {
            "" => concat!("Holt/", env!("CARGO_PKG_VERSION")).to_owned(),
            agent if agent.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => agent.to_owned(),
            _ => return Err(typed.bad("web.fetch.user_agent", "must be one line of ASCII")),
        },
        respects_robots: raw.respect_robots_txt,
        respects_agents: raw.respect_agents_txt,
        allow_private: raw.allow_private.clone(),
    })
}
