//! `[web]` as it was typed.

use super::json::typed;

#[derive(Default)]
pub(super) struct Web {
    pub(super) enabled: Option<bool>,
    pub(super) search: Search,
    pub(super) fetch: Fetch,
}

typed!(Web { enabled, search, fetch });

#[derive(Default)]
pub(super) struct Search {
    pub(super) provider: String,
    pub(super) api_key: String,
    pub(super) base_url: String,
    pub(super) max_results: Option<i64>,
}

typed!(Search { provider, api_key, base_url, max_results });

#[derive(Default)]
pub(super) struct Fetch {
    pub(super) timeout: Option<String>,
    pub(super) max_size_bytes: Option<i64>,
    pub(super) user_agent: String,
    pub(super) respect_robots_txt: bool,
    pub(super) respect_agents_txt: bool,
    pub(super) allow_private: Vec<String>,
    pub(super) jina: Jina,
}

typed!(Fetch { timeout, max_size_bytes, user_agent, respect_robots_txt, respect_agents_txt, allow_private, jina });

#[derive(Default)]
pub(super) struct Jina {
    pub(super) enabled: bool,
}

typed!(Jina { enabled });
