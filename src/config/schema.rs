//! Every key that a configuration file may hold (contract engine 10.2, 8.1, 8.5, and Holt's own), and the walk that
//! finds unknown keys and values of a wrong type before anything looks at them.

use std::collections::BTreeSet;

use toml_edit::{Item, TableLike, Value};

use super::duration::parse_go_duration;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text that is never shown.
    Secret,
    /// A whole number; a float without a fraction counts.
    Int,
    Float,
    Bool,
    /// Text that is a Go duration.
    Time,
    Texts,
    Ints,
    /// A table whose keys are the user's own, with text as values that are never shown.
    Map,
}

use Kind::{Bool, Float, Int, Ints, Map, Secret, Text, Texts, Time};

/// Path and kind. `*` stands for any name, `[]` after a name for an array of tables.
const KEYS: &[(&str, Kind)] = &[
    ("data_dir", Text),
    ("max_tools", Int),
    ("telegram.token", Secret),
    ("telegram.allowed_users", Ints),
    ("discord.token", Secret),
    ("discord.allowed_users", Texts),
    ("llm.default_provider", Text),
    ("llm.default_model", Text),
    ("llm.cost_limit_soft", Float),
    ("llm.cost_limit_hard", Float),
    ("llm.max_cost_per_session", Float),
    ("llm.openrouter.api_key", Secret),
    ("llm.anthropic.api_key", Secret),
    ("llm.anthropic.base_url", Text),
    ("llm.openai.api_key", Secret),
    ("llm.openai.base_url", Text),
    ("llm.openai.organization", Text),
    ("llm.ollama.base_url", Text),
    ("llm.fallback[].trigger", Text),
    ("llm.fallback[].action", Text),
    ("llm.fallback[].provider", Text),
    ("llm.fallback[].model", Text),
    ("llm.fallback[].threshold", Float),
    ("llm.fallback[].max_retries", Int),
    ("llm.fallback[].backoff", Text),
    // Holt's own.
    ("llm.connect_timeout", Time),
    ("llm.first_byte_timeout", Time),
    ("llm.idle_timeout", Time),
    ("llm.total_timeout", Time),
    ("llm.context_messages_max", Int),
    ("llm.max_tool_rounds", Int),
    ("memory.db_path", Text),
    ("log.level", Text),
    ("log.format", Text),
    ("session.tier", Text),
    ("agent.persona_dir", Text),
    ("agent.skills_dir", Text),
    ("agents[].name", Text),
    ("agents[].description", Text),
    ("agents[].persona_dir", Text),
    ("agents[].skills_dir", Text),
    ("agents[].adapters", Texts),
    ("agents[].llm_model", Text),
    ("agents[].session_tier", Text),
    ("agents[].browser_url_allowlist", Texts),
    ("agents[].cost_limit_soft", Float),
    ("agents[].cost_limit_hard", Float),
    ("agents[].fallback[].trigger", Text),
    ("agents[].fallback[].action", Text),
    ("agents[].fallback[].provider", Text),
    ("agents[].fallback[].model", Text),
    ("agents[].fallback[].threshold", Float),
    ("agents[].fallback[].max_retries", Int),
    ("agents[].fallback[].backoff", Text),
    ("schedules[].name", Text),
    ("schedules[].type", Text),
    ("schedules[].schedule", Text),
    ("schedules[].skill", Text),
    ("schedules[].channel", Text),
    ("schedules[].tags", Texts),
    ("schedules[].session_tier", Text),
    ("schedules[].session_mode", Text),
    ("schedules[].agent", Text),
    ("schedules[].enabled", Bool),
    ("tools.*.transport", Text),
    ("tools.*.command", Text),
    ("tools.*.args", Texts),
    ("tools.*.env", Map),
    ("tools.*.url", Text),
    ("tools.*.headers", Map),
    ("tools.*.request_timeout_secs", Int),
    ("tools.*.auth", Text),
    ("tools.*.client_id", Text),
    ("tools.*.client_secret", Secret),
    ("tools.*.scopes", Texts),
    ("tools.*.allow_loopback", Bool),
    ("plugins.*.type", Text),
    ("plugins.*.command", Text),
    ("plugins.*.args", Texts),
    ("plugins.*.env", Map),
    ("plugins.*.image", Text),
    ("plugins.*.capabilities", Texts),
    ("plugins.*.memory_limit", Text),
    ("plugins.*.cpu_limit", Text),
    ("plugins.*.network", Text),
    ("plugins.*.volumes", Texts),
    ("mcp.request_timeout_secs", Int),
    ("mcp.auto_restart", Bool),
    ("mcp.max_restart_attempts", Int),
    ("mcp.restart_cooldown", Time),
    ("mcp.url_allowlist", Texts),
    ("api.enabled", Bool),
    ("api.listen", Text),
    ("api.tls", Bool),
    ("api.cert_file", Text),
    ("api.key_file", Text),
    ("api.cors_origins", Texts),
    ("api.rate_limit", Float),
    ("api.login_rate_limit", Int),
    // The reference takes any text and falls back to its default, so this is checked later.
    ("api.login_rate_window", Text),
    ("api.websocket_enabled", Bool),
    ("api.websocket_max_connections", Int),
    ("api.websocket_replay_buffer_ttl", Time),
    ("api.external_url", Text),
    ("api.timezone", Text),
    ("api.keys[].name", Text),
    ("api.keys[].key", Secret),
    ("api.keys[].scopes", Texts),
    ("api.auth.password_hash", Secret),
    ("api.auth.session_secret", Secret),
    ("api.auth.session_max_age", Time),
    ("api.auth.oidc.enabled", Bool),
    ("api.auth.oidc.issuer", Text),
    ("api.auth.oidc.client_id", Text),
    ("api.auth.oidc.client_secret", Secret),
    ("api.auth.oidc.redirect_url", Text),
    ("api.auth.oidc.scopes", Texts),
    ("api.auth.oidc.allowed_emails", Texts),
    // Holt's own.
    ("api.allowed_hosts", Texts),
    ("api.trusted_proxies", Texts),
    ("api.web_dir", Text),
    ("http.connections_max", Int),
    ("http.workers", Int),
    ("http.body_bytes_max", Int),
    ("streams.log_age_max", Time),
    ("streams.log_bytes_max", Int),
    ("streams.turns_max", Int),
    ("security.trusted_keys", Texts),
    ("security.allow_unsigned", Bool),
    ("kv.max_keys_per_agent", Int),
    ("kv.max_value_bytes", Int),
    ("kv.cleanup_interval", Time),
    ("web.enabled", Bool),
    ("web.search.provider", Text),
    ("web.search.api_key", Secret),
    ("web.search.max_results", Int),
    ("web.fetch.timeout", Time),
    ("web.fetch.max_size_bytes", Int),
    ("web.fetch.user_agent", Text),
    ("web.fetch.respect_robots_txt", Bool),
    ("web.fetch.respect_agents_txt", Bool),
    ("web.fetch.jina.enabled", Bool),
    ("browser.enabled", Bool),
    ("browser.image", Text),
    ("browser.memory_limit", Text),
    ("browser.cpu_limit", Text),
    ("browser.profile_dir", Text),
    ("browser.session_ttl", Time),
    ("browser.max_pages", Int),
    ("browser.url_allowlist.domains", Texts),
    ("sandbox.runtime", Text),
    ("sandbox.kubernetes.namespace", Text),
    ("sandbox.kubernetes.kubeconfig", Text),
    ("sandbox.kubernetes.runtime_class", Text),
    ("otel.enabled", Bool),
    ("otel.traces_endpoint", Text),
    ("otel.service_name", Text),
    ("costs.default_rate_per_1k_tokens", Float),
    ("costs.model_prices.*.input", Float),
    ("costs.model_prices.*.output", Float),
    ("costs.model_prices.*.cached_input", Float),
    ("voice.stt_provider", Text),
    ("voice.tts_provider", Text),
    ("voice.tts_voice", Text),
    ("voice.auto_voice_reply", Bool),
    ("voice.openai.api_key", Secret),
];

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Key and what is probably meant.
    pub(super) unknown: Vec<(String, Option<String>)>,
    /// Key and reason, in the order of the file.
    pub(super) wrong: Vec<(String, String)>,
}

/// Checks a whole document, and turns floats without a fraction into integers where integers belong.
pub(super) fn check(root: &mut dyn TableLike) -> Findings {
    let mut findings = Findings::default();
    check_table(root, "", "", &mut findings);
    findings
}

fn check_table(table: &mut dyn TableLike, path: &str, pattern: &str, findings: &mut Findings) {
    for (key, item) in table.iter_mut() {
        let key = key.get().to_owned();
        let (parent, path) = (path, join(path, &key));
        let plain = join(pattern, &key);
        let array = format!("{plain}[]");
        let any = join(pattern, "*");
        if let Some(kind) = kind_of(&plain) {
            check_item(item, kind, &path, findings);
        } else if has_children(&array) {
            check_array(item, &path, &array, findings);
        } else if has_children(&plain) || has_children(&any) {
            let pattern = if has_children(&plain) { plain } else { any };
            match item.as_table_like_mut() {
                Some(table) => check_table(table, &path, &pattern, findings),
                None => findings.wrong.push((path.clone(), format!("must be a table, got {}", shown(item)))),
            }
        } else {
            let meant = nearest(&key, &children(pattern)).map(|name| join(parent, name));
            findings.unknown.push((path, meant));
        }
    }
}

fn check_array(item: &mut Item, path: &str, pattern: &str, findings: &mut Findings) {
    let wrong = format!("must be an array of tables, got {}", shown(item));
    match item {
        Item::ArrayOfTables(tables) => {
            for (at, table) in tables.iter_mut().enumerate() {
                check_table(table, &format!("{path}[{at}]"), pattern, findings);
            }
        }
        Item::Value(Value::Array(values)) => {
            for (at, value) in values.iter_mut().enumerate() {
                let path = format!("{path}[{at}]");
                match value {
                    Value::InlineTable(table) => check_table(table, &path, pattern, findings),
                    _ => findings.wrong.push((path, "must be a table".to_owned())),
                }
            }
        }
        _ => findings.wrong.push((path.to_owned(), wrong)),
    }
}

fn check_item(item: &mut Item, kind: Kind, path: &str, findings: &mut Findings) {
    if matches!(kind, Int) {
        make_whole(item);
    }
    let fits = match kind {
        Text | Secret => item.is_str(),
        Int => item.is_integer(),
        Float => item.is_float() || item.is_integer(),
        Bool => item.is_bool(),
        Time => item.as_str().is_some_and(|text| parse_go_duration(text).is_some()),
        Texts => item.as_array().is_some_and(|array| array.iter().all(Value::is_str)),
        Ints => item.as_array().is_some_and(|array| array.iter().all(Value::is_integer)),
        Map => item.as_table_like().is_some_and(|table| table.iter().all(|(_, value)| value.is_str())),
    };
    if fits {
        return;
    }
    let wanted = match kind {
        Text | Secret => "must be text in quotes",
        Int => "must be a whole number",
        Float => "must be a number",
        Bool => "must be true or false",
        Time => "must be a duration such as \"1h30m\" or \"100ms\"",
        Texts => "must be an array of texts",
        Ints => "must be an array of whole numbers",
        Map => "must be a table of texts",
    };
    let reason = match kind {
        Secret | Map => wanted.to_owned(),
        _ => format!("{wanted}, got {}", shown(item)),
    };
    findings.wrong.push((path.to_owned(), reason));
}

fn make_whole(item: &mut Item) {
    // The range in which every whole float is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(float) = item.as_float()
        && float.fract() == 0.0
        && float.abs() <= EXACT
    {
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let whole = float as i64;
        *item = toml_edit::value(whole);
    }
}

/// A value as it goes into a message: bounded, on one line; never called for secrets.
fn shown(item: &Item) -> String {
    let text = match item {
        Item::Value(Value::Array(_)) => return "an array".to_owned(),
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => return "a table".to_owned(),
        Item::ArrayOfTables(_) => return "an array of tables".to_owned(),
        Item::Value(Value::String(text)) => format!("{:?}", text.value()),
        Item::Value(value) => value.to_string(),
        Item::None => String::new(),
    };
    text.trim().chars().take(60).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind_of(pattern: &str) -> Option<Kind> {
    KEYS.iter().find(|(path, _)| *path == pattern).map(|(_, kind)| *kind)
}

fn has_children(pattern: &str) -> bool {
    KEYS.iter().any(|(path, _)| path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.')))
}

/// The names that may stand directly under `pattern`.
fn children(pattern: &str) -> BTreeSet<&'static str> {
    KEYS.iter()
        .filter_map(|(path, _)| {
            let rest = if pattern.is_empty() { *path } else { path.strip_prefix(pattern)?.strip_prefix('.')? };
            let name = rest.split('.').next()?.trim_end_matches("[]");
            (name != "*").then_some(name)
        })
        .collect()
}

/// The known name that a typing error probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a &'a str>) -> Option<&'a str> {
    // Two letters in the wrong order are a distance of two.
    let bound = match name.chars().count() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|candidate| (distance(&name.to_ascii_lowercase(), candidate), *candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein: insertions, deletions and replacements.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Findings {
        let mut doc: toml_edit::DocumentMut = text.parse().unwrap();
        check(doc.as_table_mut())
    }

    #[test]
    fn unknown_keys_are_named_with_what_was_meant() {
        let check = |text: &str, key: &str, meant: Option<&str>| {
            let found = find(text);
            assert_eq!(found.unknown, [(key.to_owned(), meant.map(str::to_owned))], "{text}");
            assert!(found.wrong.is_empty());
        };
        check("[api]\nlisten_addr = 1", "api.listen_addr", None);
        check("[api]\nlistn = ':1'", "api.listn", Some("api.listen"));
        check("[api]\nLISTEN = ':1'", "api.LISTEN", Some("api.listen"));
        check("[apii]\nlisten = ':1'", "apii", Some("api"));
        check("[zzz]\na = 1\nb = 2", "zzz", None);
        check("[[agents]]\nname = 'default'\ntier = 'x'", "agents[0].tier", None);
        check("[[agents]]\nnmae = 'default'", "agents[0].nmae", Some("agents[0].name"));
        check("[tools.web]\ncomand = 'x'", "tools.web.comand", Some("tools.web.command"));
        check("api = { listne = ':1' }", "api.listne", Some("api.listen"));
    }

    #[test]
    fn wrong_types_are_named_and_secrets_are_not_shown() {
        let check = |text: &str, key: &str, reason: &str| {
            assert_eq!(find(text).wrong, [(key.to_owned(), reason.to_owned())], "{text}");
        };
        check("[api]\nrate_limit = 'fast'", "api.rate_limit", "must be a number, got \"fast\"");
        check("[api]\nlogin_rate_limit = 1.5", "api.login_rate_limit", "must be a whole number, got 1.5");
        check("[api]\nenabled = 'yes'", "api.enabled", "must be true or false, got \"yes\"");
        check("api = 5", "api", "must be a table, got 5");
        check("[agents]\nname = 'x'", "agents", "must be an array of tables, got a table");
        check("agents = [1]", "agents[0]", "must be a table");
        check("[api.auth]\nsession_secret = 123456", "api.auth.session_secret", "must be text in quotes");
        check("[tools.a.env]\nTOKEN = 123456", "tools.a.env", "must be a table of texts");
        check(
            "[mcp]\nrestart_cooldown = 'soon'",
            "mcp.restart_cooldown",
            "must be a duration such as \"1h30m\" or \"100ms\", got \"soon\"",
        );
        check("[api]\ncors_origins = 'x'", "api.cors_origins", "must be an array of texts, got \"x\"");
    }

    #[test]
    fn whole_floats_are_integers() {
        let mut doc: toml_edit::DocumentMut = "max_tools = 30.0\n[api]\nrate_limit = 5".parse().unwrap();
        let found = check(doc.as_table_mut());
        assert!(found.wrong.is_empty() && found.unknown.is_empty());
        assert_eq!(doc["max_tools"].as_integer(), Some(30));
    }
}
