//! The whole way: options, variables and a file in, configuration or complaint out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// The file of contract engine 10.4 and http-api 14.4.
const FIXTURE: &str = r#"
[llm]
default_provider = "ollama"
default_model = "test-model"
cost_limit_hard = 100.0

[llm.ollama]
base_url = "http://127.0.0.1:1"

[api]
enabled = true
listen = ":8080"
login_rate_limit = 0

[api.auth]
password_hash = "$2a$13$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"
session_secret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
session_max_age = "24h"

[[api.keys]]
name = "e2e-test"
key = "e2e-test-token-12345678"
scopes = ["admin", "chat", "sessions:read", "costs:read", "agents:read", "agents:write", "skills:read", "skills:write",
  "schedules:read", "schedules:write", "approvals:read", "approvals:write", "tools:read", "tools:write", "kv:read", "kv:write"]

[session]
tier = "autonomous"

[web]
enabled = false
"#;

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Variables with `HOME` set to this directory; `~` at the beginning of a value stands for it.
    fn env<const N: usize>(&self, variables: [(&str, &str); N]) -> Env {
        let home = self.dir.path().to_str().unwrap();
        let variables = variables.map(|(k, v)| (k, v.replacen('~', home, 1)));
        let mut all: Vec<(&str, &str)> = vec![("HOME", home)];
        all.extend(variables.iter().map(|(k, v)| (*k, v.as_str())));
        all.into_iter().collect()
    }
}

/// Loads a file of Holt's own.
fn load_text(text: &str) -> Result<Config, ConfigError> {
    let home = Home::new();
    let flags = Flags { config: Some(home.write("holt.toml", text)), ..Flags::default() };
    load(&flags, &home.env([]))
}

/// The complaint about a file, from the file's name on.
fn complaint(text: &str) -> String {
    let error = match load_text(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    };
    assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
    error.split_once("holt.toml: ").map_or(error.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let home = Home::new();
    let config = load(&Flags::default(), &home.env([])).unwrap();
    assert_eq!(config.data_dir, home.path(".local/share/holt"));
    assert_eq!(config.config_path, home.path(".local/share/holt/holt.toml"));
    assert_eq!(config.db_path, home.path(".local/share/holt/holt.db"));
    assert_eq!(config.api.listen, "127.0.0.1:8080");
    assert_eq!((config.api.login_rate_limit, config.api.login_rate_window), (5, Duration::from_secs(900)));
    assert_eq!(config.api.replay_buffer_ttl, Duration::from_secs(300));
    assert_eq!(
        (config.api.http_connections_max, config.api.http_workers, config.api.body_bytes_max),
        (512, 0, 1 << 20)
    );
    assert_eq!(config.llm.default_provider, "local");
    assert_eq!((config.llm.context_messages_max, config.llm.tool_rounds_max), (50, 10));
    assert!((config.llm.cost_limit_hard - 1.0).abs() < f64::EPSILON);
    assert_eq!(config.streams.log_age_max, Duration::from_secs(168 * 3600));
    assert_eq!((config.streams.log_bytes_max, config.streams.turns_max), (268_435_456, 32));
    assert_eq!(config.agents.len(), 1);
    assert_eq!((config.agents[0].name.as_str(), config.agents[0].tier), ("default", Tier::Supervised));
    assert_eq!(config.agents[0].persona_dir, home.path(".local/share/holt/agents/default"));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(!home.path(".local").exists(), "loading must create nothing");
    let error = load(&Flags::default(), &Env::of([])).unwrap_err();
    assert!(matches!(error, ConfigError::NoDataDir) && error.to_string().contains("--data-dir"));
}

#[test]
fn the_end_to_end_fixture_loads() {
    let home = Home::new();
    let flags = Flags { config: Some(home.write("x/e2e.toml", FIXTURE)), ..Flags::default() };
    for sub in ["d/agents/default", "d/skills", "d/data"] {
        fs::create_dir_all(home.path(sub)).unwrap();
    }
    let config = load(&flags, &home.env([("DENKEEPER_DATA_DIR", "~/d")])).unwrap();
    assert_eq!(config.data_dir, home.path("d"));
    assert_eq!(config.api.listen, ":8080");
    assert_eq!(config.api.login_rate_limit, 0);
    assert_eq!((config.llm.default_provider.as_str(), config.llm.default_model.as_str()), ("ollama", "test-model"));
    assert_eq!(config.auth.keys[0].scopes.len(), 16);
    assert_eq!(config.agents[0].tier, Tier::Autonomous);
    assert_eq!(config.agents[0].model, "test-model");
    assert_eq!(config.warnings, Vec::<String>::new());
    let shown = format!("{config:?}");
    for secret in ["$2a$13", "00112233", "e2e-test-token"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn places_are_looked_for_in_order() {
    // Each file names itself by its tier.
    let home = Home::new();
    let tiered = |tier: &str| format!("[session]\ntier = '{tier}'\n[llm]\ndefault_model = 'm-{tier}'");
    let model = |flags: &Flags, env: &Env| {
        let config = load(flags, env).unwrap();
        (config.llm.default_model, config.api.listen, config.data_dir)
    };
    let at = |name: &str| home.path(name);
    home.write(".denkeeper/denkeeper.toml", &tiered("restricted"));
    let expected = ("m-restricted".to_owned(), ":8080".to_owned(), at(".denkeeper"));
    assert_eq!(model(&Flags::default(), &home.env([])), expected);

    home.write("dk/denkeeper.toml", &tiered("autonomous"));
    let dk = ("DENKEEPER_DATA_DIR", "~/dk");
    let expected = ("m-autonomous".to_owned(), ":8080".to_owned(), at("dk"));
    assert_eq!(model(&Flags::default(), &home.env([dk])), expected);
    let named = ("DENKEEPER_CONFIG", "~/dk/denkeeper.toml");
    let expected = ("m-autonomous".to_owned(), ":8080".to_owned(), at(".denkeeper"));
    assert_eq!(model(&Flags::default(), &home.env([named])), expected);

    home.write(".local/share/holt/holt.toml", &tiered("supervised"));
    let holt = at(".local/share/holt");
    let expected = ("m-supervised".to_owned(), "127.0.0.1:8080".to_owned(), holt.clone());
    assert_eq!(model(&Flags::default(), &home.env([named])), expected);

    let named = ("HOLT_CONFIG", "~/dk/denkeeper.toml");
    assert_eq!(model(&Flags::default(), &home.env([named])).0, "m-autonomous");
    let flags = Flags { config: Some(holt.join("holt.toml")), ..Flags::default() };
    let expected = ("m-supervised".to_owned(), "127.0.0.1:8080".to_owned(), holt);
    assert_eq!(model(&flags, &home.env([named])), expected);

    let own = ("HOLT_DATA_DIR", "~/own");
    assert_eq!(model(&flags, &home.env([own, dk])).2, at("own"));
    let flags = Flags { data_dir: Some(at("flag")), ..flags };
    assert_eq!(model(&flags, &home.env([own, dk])).2, at("flag"));
    assert_eq!(load(&Flags::default(), &home.env([("XDG_DATA_HOME", "~/xdg")])).unwrap().data_dir, at(".denkeeper"));

    let missing = Flags { config: Some(at("no.toml")), ..Flags::default() };
    let error = load(&missing, &home.env([])).unwrap_err().to_string();
    assert!(error.starts_with("config ") && error.contains("no.toml: No such file"), "{error}");
    assert!(matches!(load(&Flags::default(), &home.env([("HOLT_CONFIG", "~/no")])), Err(ConfigError::Read { .. })));
    assert!(load(&Flags::default(), &home.env([("XDG_DATA_HOME", "relative")])).is_ok());
}

#[test]
fn the_file_may_name_the_data_directory() {
    let config = load_text("data_dir = '/srv/holt'").unwrap();
    assert_eq!(config.data_dir, Path::new("/srv/holt"));
    assert_eq!(config.agents[0].persona_dir, Path::new("/srv/holt/agents/default"));
}

#[test]
fn options_win_over_variables_over_the_file() {
    let home = Home::new();
    let file = "[api]\nlisten = '127.0.0.1:1'\nenabled = false\n[log]\nlevel = 'error'\n[session]\ntier = 'autonomous'";
    let flags = Flags { config: Some(home.write("holt.toml", file)), ..Flags::default() };
    let on = ("HOLT_API_ENABLED", "1");
    let theirs = ("DENKEEPER_API_LISTEN", "127.0.0.1:2");
    let ours = ("HOLT_API_LISTEN", "127.0.0.1:3");
    let listen = |flags: &Flags, env: &Env| load(flags, env).unwrap().api.listen;
    assert_eq!(listen(&flags, &home.env([on])), "127.0.0.1:1");
    assert_eq!(listen(&flags, &home.env([on, theirs])), "127.0.0.1:2");
    assert_eq!(listen(&flags, &home.env([on, theirs, ours])), "127.0.0.1:3");
    assert_eq!(listen(&flags, &home.env([on, theirs, ("HOLT_API_LISTEN", "")])), "127.0.0.1:2");
    let asked = Flags { listen: Some("127.0.0.1:4".into()), ..flags.clone() };
    assert_eq!(listen(&asked, &home.env([on, theirs, ours])), "127.0.0.1:4");
    // Not a switch word: ignored, so the file's `false` stays.
    assert!(load(&flags, &home.env([("HOLT_API_ENABLED", "yes")])).is_err());

    let error = load(&flags, &home.env([on, ("DENKEEPER_SESSION_TIER", "root")])).unwrap_err().to_string();
    let expected =
        "variable DENKEEPER_SESSION_TIER: session.tier: must be autonomous, supervised or restricted, got \"root\"";
    assert_eq!(error, expected);
    let asked = Flags { listen: Some("nowhere".into()), ..flags };
    let error = load(&asked, &home.env([on])).unwrap_err().to_string();
    assert!(error.starts_with("option --listen: api.listen: must be an address"), "{error}");
}

#[test]
fn every_variable_of_the_reference_is_read() {
    let home = Home::new();
    let secret = "ab".repeat(32);
    let config = load(
        &Flags::default(),
        &home.env([
            ("DENKEEPER_LLM_PROVIDER", "openai"),
            ("DENKEEPER_LLM_MODEL", "m"),
            ("DENKEEPER_LLM_OPENAI_API_KEY", "sk-1"),
            ("DENKEEPER_LLM_OPENAI_BASE_URL", "http://gpu:8000/v1"),
            ("DENKEEPER_LLM_OLLAMA_BASE_URL", "http://gpu:11434"),
            ("DENKEEPER_LOG_LEVEL", "debug"),
            ("DENKEEPER_LOG_FORMAT", "json"),
            ("DENKEEPER_API_WEBSOCKET_ENABLED", "0"),
            ("DENKEEPER_API_AUTH_SESSION_SECRET", &secret),
            ("DENKEEPER_API_EXTERNAL_URL", "https://holt.example/"),
            ("DENKEEPER_TIMEZONE", "Europe/Berlin"),
            ("DENKEEPER_TELEGRAM_TOKEN", "123:abc"),
            ("DENKEEPER_DISCORD_TOKEN", "abc"),
            ("DENKEEPER_OTEL_TRACES_ENDPOINT", "http://otel:4318"),
        ]),
    )
    .unwrap();
    let openai = config.llm.providers.iter().find(|p| p.kind == ProviderKind::OpenAi).unwrap();
    assert_eq!((openai.api_key.as_deref(), openai.base_url.as_deref()), (Some("sk-1"), Some("http://gpu:8000/v1")));
    assert_eq!(config.llm.default_provider, "openai");
    assert_eq!((config.log.level, config.log.json), (log::LevelFilter::Debug, true));
    assert!(!config.api.websocket_enabled);
    assert_eq!(config.auth.session_secret, Some(secret));
    assert_eq!(config.api.external_url.as_deref(), Some("https://holt.example"));
    assert_eq!(config.api.timezone, "Europe/Berlin");
    let expected =
        ["telegram: not supported", "discord: not supported", "otel.traces_endpoint: sending traces is not supported"];
    assert_eq!(config.warnings, expected);
}

#[test]
fn bad_values_are_refused_with_key_and_reason() {
    let check = |text: &str, expected: &str| assert_eq!(complaint(text), expected, "{text}");
    check("[api]\nrate_limit = -1", "api.rate_limit: must be 0 or more, got -1");
    check("[api]\nrate_limit = nan", "api.rate_limit: must be a number, got nan");
    check("[api]\nlogin_rate_limit = -1", "api.login_rate_limit: must be 0 or more, got -1");
    check("[api]\nwebsocket_max_connections = -5", "api.websocket_max_connections: must be 0 or more, got -5");
    check("[http]\nbody_bytes_max = 99999999", "http.body_bytes_max: must be from 1024 to 16777216, got 99999999");
    check("[http]\nhead_timeout = '0s'", "http.head_timeout: must be more than 0");
    check(
        "[http]\nidle_timeout = 'soon'",
        "http.idle_timeout: must be a duration such as \"1h30m\" or \"100ms\", got \"soon\"",
    );
    check("[http]\nconnections_max = 0", "http.connections_max: must be 1 or more, got 0");
    check("[streams]\nturns_max = 0", "streams.turns_max: must be 1 or more, got 0");
    check("[llm]\nidle_timeout = '0s'", "llm.idle_timeout: must be more than 0");
    check("[llm]\ncost_limit_soft = 2", "llm.cost_limit_soft: must not be above the hard limit of 1, got 2");
    check("[kv]\nmax_value_bytes = -1", "kv.max_value_bytes: must be 1 or more, got -1");
    check("[kv]\ncleanup_interval = '0s'", "kv.cleanup_interval: must be more than 0");
    check("[costs]\ndaily_limit_hard = -1.0", "costs.daily_limit_hard: must be 0 or more, got -1");
    check(
        "[costs.agents.default]\nmonthly_limit_soft = 2.0\nmonthly_limit_hard = 1.0",
        "costs.agents.\"default\".monthly_limit_soft: must not be above the hard limit of 1, got 2",
    );
    check("[costs.model_prices.\"x/y\"]\noutput = inf", "costs.model_prices.x/y.output: must be a number, got inf");
    check(
        "[[agents]]\nname = 'default'\ncost_limit_soft = 2",
        "agents[0].cost_limit_soft: must not be above the hard limit of 1, got 2",
    );
    check("[llm]\ncost_limit_hard = -2.5", "llm.cost_limit_hard: must be 0 or more, got -2.5");
    check(
        "[llm.ollama]\nbase_url = 'gpu:1'",
        "llm.ollama.base_url: must begin with http:// or https:// and name a host",
    );
    check(
        "[llm.openai]\nbase_url = 'http://me:pw@gpu/v1'",
        "llm.openai.base_url: must not hold a user name or password; use api_key",
    );
    check("[session]\ntier = 'x'", "session.tier: must be autonomous, supervised or restricted, got \"x\"");
    check(
        "[api]\ntimezone = 'Mars/Base'",
        "api.timezone: must be a time zone such as \"Europe/Berlin\", got \"Mars/Base\"",
    );
    check(
        "[api]\ncors_origins = ['*']",
        "api.cors_origins: must name origins one by one: * is refused because logins are cookies",
    );
    check("[api]\nenabled = false", "api.enabled: must be true: without its API Holt has nothing to serve");
    check(
        "[api]\ntrusted_proxies = ['proxy']",
        "api.trusted_proxies: must be addresses such as \"10.0.0.0/8\" or \"::1\", got \"proxy\"",
    );
    check("[api]\nweb_dir = '/nowhere'", "api.web_dir: /nowhere is not a directory");
    check("[api]\nexternal_url = 'holt'", "api.external_url: must be an http or https address without a user name");
    check(
        "[api.auth]\nsession_secret = 'abcd'",
        "api.auth.session_secret: must be at least 32 bytes in hex (64 digits)",
    );
    check(
        "[api.auth]\npassword_hash = 'plain'",
        "api.auth.password_hash: must be a bcrypt hash that begins with $2a$ or $2b$; `holt passwd` makes one",
    );
    check("[api.auth]\nsession_max_age = '0'", "api.auth.session_max_age: must be more than 0");
    check("[[api.keys]]\nname = 'a'\nscopes = ['chat']", "api.keys[0].key: must be given");
    let twice = "[[api.keys]]\nname = 'a'\nkey = 'k'\nscopes = ['chat']\n".repeat(2);
    check(&twice, "api.keys[1].name: must be unique, \"a\" is there twice");
    assert!(complaint("[[api.keys]]\nname = 'a'\nkey = 'k'\nscopes = ['root']").contains("unknown scope \"root\""));
    assert!(complaint("[[api.keys]]\nname = 'a'\nkey = 'k'\nscopes = []").contains("at least one scope"));
    check("[[agents]]\nname = 'a'", "agents: one agent must have the name \"default\"");
    check("[[agents]]\nname = '../x'", "agents[0].name: must be at most 64 of a-z, 0-9, _ and -, got \"../x\"");
    check(
        "[[schedules]]\nname = 'n'\ntype = 'x'\nschedule = '@daily'",
        "schedules[0].type: must be one of system, agent, got \"x\"",
    );
    check(
        "[[schedules]]\nname = 'n'\ntype = 'agent'\nschedule = '@daily'\ntimezone = 'Mars'",
        "schedules[0].timezone: must be a time zone such as \"Europe/Berlin\", got \"Mars\"",
    );
    check("[tools.t]\ntransport = 'sse'", "tools.t.url: url is required for sse transport");
    check("[plugins.p]\ntype = 'docker'", "plugins.p.image: image is required for docker plugins");
    check("[web.search]\nprovider = 'tavily'", "web.search.api_key: must be given");
    check(
        "[[llm.fallback]]\ntrigger = 'low_funds'\naction = 'switch_model'\nmodel = 'm'",
        "llm.fallback[0].threshold: must be more than 0, got 0",
    );
    check(
        "[[llm.fallback]]\ntrigger = 'error'\naction = 'wait_and_retry'",
        "llm.fallback[0].max_retries: must be 1 or more, got 0",
    );
    check(
        "[mcp]\nrestart_cooldown = 5",
        "mcp.restart_cooldown: must be a duration such as \"1h30m\" or \"100ms\", got 5",
    );
}

#[test]
fn files_that_are_not_toml_are_named_by_place_and_not_quoted() {
    let error = complaint("[api]\nlisten = ':1'\n[api.auth]\nsession_secret = deadbeef\n");
    assert!(error.starts_with("line 4, column "), "{error}");
    assert!(!error.contains("deadbeef"), "{error}");
}

#[test]
fn unknown_keys_are_warnings_and_the_rest_counts() {
    let config = load_text("max_tools = 30.0\n[api]\nlistn = ':1'\nlisten = ':2'\n[nonsense]\nx = 1").unwrap();
    assert_eq!(config.api.listen, ":2");
    assert_eq!(config.warnings.len(), 2);
    assert!(config.warnings[0].ends_with("holt.toml: api.listn: unknown key; did you mean api.listen?"));
    assert!(config.warnings[1].ends_with("holt.toml: nonsense: unknown key"));
}

#[test]
fn what_the_reference_forgives_is_forgiven_with_a_warning() {
    let config = load_text("[api]\nlogin_rate_window = 'often'\n[log]\nlevel = 'loud'\nformat = 'xml'").unwrap();
    assert_eq!(config.api.login_rate_window, Duration::from_secs(900));
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    let config = load_text("[api]\ncors_origins = ['HTTPS://Home.Example/', 'odd']").unwrap();
    assert_eq!(config.api.cors_origins, ["https://home.example", "odd"]);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn the_provider_is_the_chosen_one_or_the_first_with_a_credential() {
    let check = |text: &str, expected: &str, n_warnings: usize| {
        let config = load_text(text).unwrap();
        assert_eq!(config.llm.default_provider, expected, "{text}");
        assert_eq!(config.warnings.len(), n_warnings, "{text}: {:?}", config.warnings);
    };
    check("", "local", 0);
    check("[llm]\ndefault_model = 'm'\n[llm.openai]\napi_key = 'k'", "openai", 0);
    check("[llm.openai]\nbase_url = 'http://gpu/v1'", "openai", 1);
    check("[llm]\ndefault_model = 'm'\n[llm.ollama]\nbase_url = 'http://gpu:1'", "ollama", 0);
    check("[llm]\ndefault_provider = 'ollama'\ndefault_model = 'm'\n[llm.openai]\napi_key = 'k'", "ollama", 0);
    check("[llm]\ndefault_provider = 'local'\n[llm.openai]\napi_key = 'k'", "local", 0);
    check("[llm.anthropic]\napi_key = 'k'\n[llm.openrouter]\napi_key = 'k'", "anthropic", 1);
    check("[llm]\ndefault_model = 'm'\n[llm.openrouter]\napi_key = 'k'\n[llm.openai]\napi_key = 'k'", "openrouter", 0);
    let named = "[[llm.providers]]\nname = 'gpu'\ntype = 'openai'\nbase_url = 'http://gpu:8000'";
    check(&format!("[llm]\ndefault_model = 'm'\n{named}"), "gpu", 0);
    check(&format!("[llm]\ndefault_model = 'm'\ndefault_provider = 'gpu'\n{named}"), "gpu", 0);
    let refused = |text: &str, part: &str| {
        let error = complaint(text);
        assert!(error.starts_with("llm.default_provider: ") && error.contains(part), "{error}");
    };
    refused("[llm]\ndefault_provider = 'openai'", "llm.openai.api_key");
    refused("[llm]\ndefault_provider = 'anthropic'", "llm.anthropic.api_key");
    refused("[llm]\ndefault_provider = 'openrouter'", "llm.openrouter.api_key");
    refused("[llm]\ndefault_provider = 'gpt'", "one of local, openai, ollama");
}

#[test]
fn agents_are_sorted_with_default_first() {
    let text = "[llm]\ndefault_provider = 'ollama'\ndefault_model = 'g'\n[session]\ntier = 'restricted'\n\
        [[agents]]\nname = 'zoe'\nllm_model = 'own'\nsession_tier = 'autonomous'\npersona_dir = '/p'\n\
        [[agents]]\nname = 'default'\n[[agents]]\nname = 'Big Name'\n";
    let config = load_text(text).unwrap();
    let names: Vec<_> = config.agents.iter().map(|a| (a.name.as_str(), a.tier, a.model.as_str())).collect();
    let expected =
        [("default", Tier::Restricted, "g"), ("Big Name", Tier::Restricted, "g"), ("zoe", Tier::Autonomous, "own")];
    assert_eq!(names, expected);
    assert_eq!(config.agents[2].persona_dir, Path::new("/p"));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn a_database_of_the_reference_stops_the_start() {
    let home = Home::new();
    home.write("d/data/memory.db", "SQLite format 3\0 and so on");
    let env = home.env([("HOLT_DATA_DIR", "~/d")]);
    let error = load(&Flags::default(), &env).unwrap_err().to_string();
    assert!(error.contains("data/memory.db is a database of another program"), "{error}");
    assert!(error.contains("holt import"), "{error}");
    // Once its data was taken over, it is only a file.
    home.write("d/holt.db", "SQLite format 3\0");
    assert_eq!(load(&Flags::default(), &env).unwrap().db_path, home.path("d/holt.db"));
    let with =
        |path: &str| load(&Flags::default(), &home.env([("HOLT_DATA_DIR", "~/d"), ("HOLT_MEMORY_DB_PATH", path)]));
    assert!(matches!(with("~/d/data/memory.db"), Err(ConfigError::ReferenceDatabase { .. })));
    assert_eq!(with("~/elsewhere/holt.db").unwrap().db_path, home.path("elsewhere/holt.db"));
    let config = with("~/new.db").unwrap();
    assert_eq!(config.db_path, home.path("d/holt.db"));
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_report_says_what_would_happen() {
    let home = Home::new();
    let report = check(&Flags::default(), &home.env([]), &|_| Ok(vec!["more".to_owned()]));
    assert!(report.ok);
    assert_eq!(report.lines.last().map(String::as_str), Some("ok"));
    assert_eq!(report.lines[0], "warning: more");
    assert!(report.lines[1].contains("not there yet"), "{report:?}");
    let report = check(&Flags::default(), &home.env([]), &|_| Err("no".to_owned()));
    assert_eq!((report.ok, report.lines), (false, vec!["no".to_owned()]));
    let report = check(&Flags::default(), &home.env([("HOLT_SESSION_TIER", "x")]), &|_| Ok(Vec::new()));
    assert!(!report.ok && report.lines.len() == 1, "{report:?}");
}

#[test]
fn named_providers_are_checked_and_agents_choose_among_them() {
    let gpu = "[[llm.providers]]\nname = 'gpu'\ntype = 'openai'\nbase_url = 'http://10.0.0.7:8000'\nmax_tokens = 900\n";
    let paid = "[[llm.providers]]\nname = 'paid'\ntype = 'anthropic'\napi_key = 'k'\nfree = false\n";
    let agents = "[[agents]]\nname = 'default'\n[[agents]]\nname = 'zoe'\nllm_provider = 'gpu'\nllm_model = 'm'\n\
        [[agents.fallback]]\ntrigger = 'error'\naction = 'switch_provider'\nprovider = 'paid'\n\
        [[agents.fallback]]\ntrigger = 'error'\naction = 'switch_provider'\nprovider = 'openrouter'\n";
    let config = load_text(&format!("[llm]\ndefault_provider = 'local'\n{gpu}{paid}{agents}")).unwrap();
    let free: Vec<_> = config.llm.providers.iter().map(|p| (p.name.as_str(), p.is_free)).collect();
    assert_eq!(free, [("local", true), ("ollama", true), ("gpu", true), ("paid", false)]);
    assert_eq!(config.llm.providers[2].max_tokens, Some(900));
    assert_eq!((config.agents[0].provider.as_str(), config.agents[1].provider.as_str()), ("local", "gpu"));
    let switch = FallbackAction::SwitchProvider { provider: "paid".into(), model: None };
    assert_eq!(config.agents[1].fallback[0], FallbackRule { trigger: FallbackTrigger::Error, action: switch });
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].starts_with("agents[1].fallback[1].provider: \"openrouter\" is not set up"));
    let refused = |text: &str, start: &str| {
        let error = complaint(text);
        assert!(error.starts_with(start), "{error}");
    };
    refused(&format!("{gpu}{gpu}"), "llm.providers[1].name: must be unique");
    refused("[[llm.providers]]\nname = 'local'\ntype = 'openai'", "llm.providers[0].name: must be unique");
    refused("[[llm.providers]]\nname = 'My GPU'\ntype = 'openai'", "llm.providers[0].name: must be 1 to 64");
    refused("[[llm.providers]]\nname = 'x'\ntype = 'gemini'", "llm.providers[0].type: must be one of");
    refused("[[llm.providers]]\nname = 'x'\ntype = 'anthropic'", "llm.providers[0].api_key: must be given");
    refused("[[llm.providers]]\nname = 'x'\ntype = 'openai'\nmax_tokens = 0", "llm.providers[0].max_tokens: ");
    refused("[[llm.providers]]\nname = 'x'\ntype = 'openai'\nbase_url = 'gpu'", "llm.providers[0].base_url: ");
    refused("[[agents]]\nname = 'default'\nllm_provider = 'gpt'", "agents[0].llm_provider: must be one of");
}

#[test]
fn what_runs_on_hardware_of_the_users_is_free() {
    let check = |base: &str, free: bool| {
        let config = load_text(&format!("[llm]\ndefault_model = 'm'\n[llm.openai]\nbase_url = '{base}'")).unwrap();
        assert_eq!(config.llm.providers.iter().find(|p| p.name == "openai").unwrap().is_free, free, "{base}");
    };
    for own in [
        "http://localhost:1234/v1",
        "http://127.0.0.1",
        "http://192.168.1.9:8000/v1",
        "http://gpu",
        "http://[::1]:9",
        "http://[fd00::7]/v1",
        "https://box.local/v1",
        "http://10.1.2.3",
    ] {
        check(own, true);
    }
    for foreign in [
        "https://api.example.com",
        "http://8.8.8.8",
        "http://172.32.0.1",
        "http://[2001:db8::1]/v1",
        "https://local.example",
    ] {
        check(foreign, false);
    }
}

#[test]
fn secrets_may_stand_elsewhere_and_are_never_shown() {
    let home = Home::new();
    home.write("d/holt.toml", "[llm]\ndefault_model = 'm'\n[llm.openai]\napi_key = 'env:OPENAI_KEY'");
    let with = |value: &str| {
        let env = home.env([("HOLT_DATA_DIR", "~/d"), ("OPENAI_KEY", value)]);
        load(&Flags::default(), &env)
    };
    let config = with("sk-hidden").unwrap();
    let key = config.llm.providers.iter().find(|p| p.name == "openai").unwrap().api_key.clone();
    assert_eq!(key.as_deref(), Some("sk-hidden"));
    assert!(!format!("{config:?}").contains("sk-hidden"));
    let error = with("").unwrap_err().to_string();
    assert!(error.contains("llm.openai.api_key: the variable OPENAI_KEY is not set"), "{error}");
    home.write("d/secret", "00ff");
    let sealed = seal("00ff", "sk-sealed").unwrap();
    home.write("d/holt.toml", &format!("[llm]\ndefault_model = 'm'\n[llm.anthropic]\napi_key = '{sealed}'"));
    let config = with("").unwrap();
    assert_eq!(config.llm.providers[1].api_key.as_deref(), Some("sk-sealed"));
    home.write("d/secret", "other");
    let error = with("").unwrap_err().to_string();
    assert!(error.contains("llm.anthropic.api_key: was sealed with another key"), "{error}");
    assert!(!error.contains(&sealed), "{error}");
}

#[test]
fn machines_and_who_may_use_them() {
    let config = load_text(
        "[fleet]\nshared_token = \"0123456789abcdef\"\ndown_after = \"2m\"\n[[fleet.access]]\nwho = \"key:phone\"\n\
         labels = { site = \"home\" }\nallow = [\"view\", \"chat\"]\n",
    )
    .unwrap();
    assert_eq!(config.fleet.shared_token.as_deref(), Some("0123456789abcdef"));
    assert_eq!((config.fleet.down_after, config.fleet.approval_requests), (Duration::from_secs(120), true));
    assert_eq!(config.fleet.access[0].labels["site"], "home");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    let off =
        load_text("[fleet]\nshared_token = \"0123456789abcdef\"\nallow_shared = false\napproval_requests = false");
    assert!(off.is_ok_and(|config| config.fleet.shared_token.is_none() && !config.fleet.approval_requests));
    let access = |line: &str| complaint(&format!("[[fleet.access]]\nwho = \"*\"\nmachines = [\"*\"]\n{line}\n"));
    assert_eq!(
        access("allow = [\"shell\"]"),
        "fleet.access[0].allow: may hold view, inspect, diagnose, chat; got \"shell\""
    );
    let who = complaint("[[fleet.access]]\nwho = \"ana\"\nmachines = [\"*\"]\n");
    assert!(who.starts_with("fleet.access[0].who: must be \"key:NAME\""), "{who}");
    let nobody = complaint("[[fleet.access]]\nwho = \"*\"\nallow = [\"chat\"]\n");
    assert!(nobody.starts_with("fleet.access[0].machines: is missing"), "{nobody}");
    assert!(complaint("[fleet]\nshared_token = \"short\"").starts_with("fleet.shared_token: must be at least 16"));
}

#[test]
fn logging_in_through_a_provider_needs_all_of_it() {
    const GOOD: &str = "[api.auth.oidc]\nenabled = true\nissuer = \"https://id.example.org/a/\"\nclient_id = \"c\"\n\
                        client_secret = \"s3cret\"\nredirect_url = \"https://h/auth/callback\"\n\
                        allowed_emails = [\" Me@Example.ORG\"]";
    let config = load_text(GOOD).unwrap();
    assert!(config.warnings.is_empty() && !format!("{config:?}").contains("s3cret"));
    let oidc = config.auth.oidc.unwrap();
    assert_eq!((oidc.issuer.as_str(), &oidc.allowed_emails[0][..]), ("https://id.example.org/a/", "me@example.org"));
    assert_eq!(oidc.scopes, ["openid", "email", "profile"]);
    let scopes = load_text(&format!("{GOOD}\nscopes = [\"email\"]")).unwrap().auth.oidc.unwrap().scopes;
    assert_eq!(scopes, ["openid", "email"]);
    assert!(load_text(&GOOD.replace("true", "false")).unwrap().auth.oidc.is_none());
    let without = |key: &str| GOOD.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
    for key in ["issuer", "client_id", "client_secret", "redirect_url", "allowed_emails"] {
        let said = complaint(&without(key));
        assert!(said.starts_with(&format!("api.auth.oidc.{key}: must ")), "{said}");
    }
    for (from, to, key) in [
        ("https://id.example.org/a/", "id.example.org", "issuer"),
        ("https://id.example.org/a/", "https://id.example.org/?a", "issuer"),
        ("/auth/callback", "/elsewhere", "redirect_url"),
        (" Me@Example.ORG", "me", "allowed_emails"),
        ("[\" Me@Example.ORG\"]", "[]", "allowed_emails"),
    ] {
        let said = complaint(&GOOD.replace(from, to));
        assert!(said.starts_with(&format!("api.auth.oidc.{key}: ")), "{said}");
    }
    let external = format!("[api]\nexternal_url = \"https://h/x/\"\n{}", without("redirect_url"));
    assert_eq!(load_text(&external).unwrap().auth.oidc.unwrap().redirect_url, "https://h/x/auth/callback");
    let plain = GOOD.replace("https://id.example.org/a/", "http://id.example.org");
    assert!(load_text(&plain).unwrap().warnings[0].contains("use https://"));
    assert!(load_text(&plain.replace("id.example.org", "localhost:80")).unwrap().warnings.is_empty());
}
