//! From a server's configuration to an open connection and its list of tools.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::expand::{placeholders, shell_like};
use crate::config::{Env, McpConfig, PartOf, ToolServerConfig};
use crate::limits;
use crate::mcp::oauth::{Access, OAuthDeps, Place};
use crate::mcp::{self, Children, Client, ErrorLog, Mask, McpError, Program, Target, ToolDef};
use crate::net::guard::{CheckedUrl, Guard, HostPattern, Origin, check_header};
use crate::net::url::escape;
use crate::rt::{Cancel, Threads};

/// An open connection, ready to be used.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) tools: Vec<ToolDef>,
}

/// What every connection needs.
pub(super) struct Connector {
    pub(super) settings: McpConfig,
    pub(super) env: Env,
    pub(super) threads: Threads,
    pub(super) children: Children,
    /// With what logins are kept; set once.
    pub(super) oauth: OnceLock<OAuthDeps>,
}

/// Where a remote server is, and what comes along.
struct Remote {
    url: CheckedUrl,
    guard: Guard,
    headers: Vec<(String, String)>,
    mask: Mask,
    /// `mcp.url_allowlist`.
    only: Vec<HostPattern>,
}

impl Connector {
    /// How long one call to that server may be silent.
    pub(super) fn request_timeout(&self, config: &ToolServerConfig) -> Duration {
        match u64::try_from(config.request_timeout_secs) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => self.settings.request_timeout,
        }
    }

    /// Starts or reaches the server, makes the handshake, and asks for its tools. Blocks up to
    /// [`limits::MCP_CONNECT_TIMEOUT`]; a cancel ends it. What a program complains of goes into `log`.
    pub(super) fn connect(
        &self,
        name: &str,
        config: &ToolServerConfig,
        log: &ErrorLog,
        cancel: &Cancel,
    ) -> Result<Connected, McpError> {
        let deadline = Instant::now() + limits::MCP_CONNECT_TIMEOUT;
        let client =
            if config.is_remote() { self.reach(name, config, cancel)? } else { self.start(name, config, log, cancel)? };
        let left = deadline.saturating_duration_since(Instant::now());
        match client.list_tools(left, cancel) {
            Ok(tools) => Ok(Connected { client, tools }),
            // The connection's own end says more.
            Err(error) => Err(client.closed().unwrap_or(error)),
        }
    }

    /// What can be said about a configuration without connecting.
    pub(super) fn check(&self, config: &ToolServerConfig) -> Result<(), McpError> {
        let env = self.own_env(config)?;
        if config.is_remote() {
            self.remote(config, &env)?;
        }
        Ok(())
    }

    /// Where a server's login may lead, and the header lines that it wants.
    pub(super) fn place(&self, config: &ToolServerConfig) -> Result<(Place, Vec<(String, String)>), McpError> {
        let remote = self.remote(config, &self.own_env(config)?)?;
        Ok((Place::new(remote.url, remote.guard, &remote.only), remote.headers))
    }

    /// Whether a server that wants a login has one.
    pub(super) fn has_login(&self, name: &str, config: &ToolServerConfig) -> bool {
        let Some(deps) = self.oauth.get() else { return false };
        let place = self.place(config);
        place.is_ok_and(|(place, _)| Access::new(Arc::clone(&deps.token_store), name, place).is_usable())
    }

    fn reach(&self, name: &str, config: &ToolServerConfig, cancel: &Cancel) -> Result<Client, McpError> {
        let env = self.own_env(config)?;
        let Remote { url, guard, headers, mask, only } = self.remote(config, &env)?;
        let access = match self.oauth.get() {
            Some(deps) if config.auth == "oauth" => {
                let place = Place::new(url.clone(), guard.clone(), &only);
                Some(Access::new(Arc::clone(&deps.token_store), name, place))
            }
            _ => None,
        };
        let target = Target { url, guard, headers, access };
        mcp::reach(name, target, mask, limits::MCP_CONNECT_TIMEOUT, cancel)
    }

    /// Where a remote server is, if Holt may go there (contract engine 8.3; decisions, row "SSRF"), and what nobody may
    /// see of that.
    fn remote(&self, config: &ToolServerConfig, env: &BTreeMap<String, String>) -> Result<Remote, McpError> {
        let mut only = Vec::new();
        for host in &self.settings.url_allowlist {
            only.push(HostPattern::parse(host).map_err(|reason| McpError::Refused { reason })?);
        }
        let operator = Origin::Operator { allow_loopback: config.allow_loopback };
        let origin = if config.untrusted { Origin::Untrusted } else { operator };
        let mut guard = Guard::new(origin).only(&only);
        if config.untrusted {
            guard = guard.allow_inside(&[], "a tool server that they configure themselves");
        }
        // What a model chose sees no variable of the hub, whatever it refers to.
        let nothing = Env::default();
        let process = if config.untrusted { &nothing } else { &self.env };
        let mut secrets: Vec<String> = env.values().cloned().collect();
        let url = placeholders(&config.url, env, process, &mut secrets).map_err(|error| refused(&error))?;
        // In a URL they may stand escaped.
        secrets.extend(secrets.iter().map(|secret| escape(secret)).collect::<Vec<_>>());
        let url = guard.check_url(&url).map_err(|error| McpError::Refused {
            reason: Mask::new(secrets.iter().map(String::as_str)).apply(&error.to_string()),
        })?;
        secrets.extend(url.url().userinfo.split(':').map(str::to_owned));
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let value = placeholders(value, env, process, &mut secrets).map_err(|error| refused(&error))?;
            check_header(name, &value).map_err(|error| refused(&error))?;
            secrets.push(value.clone());
            // The token stands there.
            if config.auth == "oauth" && name.eq_ignore_ascii_case("authorization") {
                continue;
            }
            headers.push((name.clone(), value));
        }
        let mask = Mask::new(secrets.iter().map(String::as_str));
        Ok(Remote { url, guard, headers, mask, only })
    }

    fn start(
        &self,
        name: &str,
        config: &ToolServerConfig,
        log: &ErrorLog,
        cancel: &Cancel,
    ) -> Result<Client, McpError> {
        if config.part_of == PartOf::Program {
            crate::tools::plugins::check(&self.settings.security, &config.command)
                .map_err(|reason| McpError::Refused { reason })?;
        }
        let mut env = self.own_env(config)?;
        let mask = Mask::new(env.values().map(String::as_str));
        let mut arguments = config.args.clone();
        if config.is_container() {
            fill(&mut arguments, &std::mem::take(&mut env));
        }
        let process_env: Vec<(String, String)> =
            self.env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let program = Program {
            command: &config.command,
            arguments: &arguments,
            env: &env,
            process_env: &process_env,
            children: &self.children,
            log,
        };
        mcp::start_program(name, &program, mask, limits::MCP_CONNECT_TIMEOUT, &self.threads, cancel)
    }

    /// The server's variables, with references to ours replaced; as they are where a model chose them.
    fn own_env(&self, config: &ToolServerConfig) -> Result<BTreeMap<String, String>, McpError> {
        if config.untrusted {
            return Ok(config.env.clone());
        }
        let mut env = BTreeMap::new();
        for (name, value) in &config.env {
            let value = shell_like(value, &self.env).map_err(|error| refused(&error))?;
            env.insert(name.clone(), value);
        }
        Ok(env)
    }
}

/// `-e NAME` becomes `-e NAME=value`.
fn fill(arguments: &mut [String], env: &BTreeMap<String, String>) {
    for at in 1..arguments.len() {
        if arguments[at - 1] == "-e"
            && let Some(value) = env.get(&arguments[at])
        {
            arguments[at] = format!("{}={value}", arguments[at]);
        }
    }
}

fn refused(reason: &dyn std::fmt::Display) -> McpError {
    McpError::Refused { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector() -> Connector {
        let env = Env::of([("HUB_SECRET", "hub-value")]);
        let (threads, children, oauth) = (Threads::new(), Children::default(), OnceLock::new());
        Connector { settings: McpConfig::default(), env, threads, children, oauth }
    }

    fn remote(url: &str, untrusted: bool) -> ToolServerConfig {
        let pairs = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        ToolServerConfig {
            transport: "sse".into(),
            url: url.into(),
            env: pairs("OWN", "own $HUB_SECRET"),
            headers: pairs("X", "${OWN}|${HUB_SECRET}"),
            allow_loopback: true,
            untrusted,
            ..ToolServerConfig::default()
        }
    }

    fn target(url: &str, untrusted: bool) -> Result<Remote, McpError> {
        let (connector, config) = (connector(), remote(url, untrusted));
        let env = connector.own_env(&config)?;
        connector.remote(&config, &env)
    }

    #[test]
    fn what_was_put_into_a_url_is_masked() {
        let (connector, mut config) = (connector(), remote("https://e.com/${KEY}/${HUB_SECRET}", false));
        config.env.insert("KEY".into(), "hunter2 secret".into());
        let target = connector.remote(&config, &config.env).unwrap();
        assert_eq!(target.url.url().path_and_query, "/hunter2%20secret/hub-value");
        assert_eq!(target.mask.apply(&target.url.text()), "https://e.com/***/***");
    }

    #[test]
    fn what_a_model_chose_sees_no_variable_of_the_hub() {
        let header = |untrusted| target("https://e.com/mcp", untrusted).unwrap().headers[0].1.clone();
        assert_eq!(header(false), "own hub-value|hub-value");
        assert_eq!(header(true), "own $HUB_SECRET|");
        assert_eq!(target("https://e.com/${HUB_SECRET}", true).unwrap().url.text(), "https://e.com/");
    }

    #[test]
    fn what_a_model_chose_leads_to_public_addresses_only() {
        for inside in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1"] {
            let ip = inside.parse().unwrap();
            let filter = |untrusted| target("https://e.com/mcp", untrusted).unwrap().url.filter();
            assert!(filter(false)(ip) && !filter(true)(ip), "{inside}");
            let url = if inside.contains(':') { format!("http://[{inside}]/") } else { format!("http://{inside}/") };
            assert!(target(&url, false).is_ok());
            let refused = target(&url, true).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains("an operator can allow it with a tool server"), "{refused}");
            // Nor does a redirect lead there.
            let to = target("https://e.com/mcp", true).unwrap();
            assert!(to.guard.check_redirect(&to.url, &url).is_err());
        }
        assert!(target("https://user:password@e.com/", true).is_err());
    }
}
