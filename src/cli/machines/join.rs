//! `holt machines join`: a join code, as the line to run on the other machine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::{labels, name};
use crate::cli::args::Args;
use crate::cli::command::{Action, Arg, Command};
use crate::cli::database::Database;
use crate::cli::output::{self, out};
use crate::cli::sessions::parse_age;
use crate::cli::{CliError, Context, hub, time};
use crate::fleet::sign::HubKey;
use crate::limits::{JOIN_CODE_TTL, JOIN_CODE_TTL_MAX};
use crate::store::JoinCodeStore;
use crate::store::join_codes::join_code;

/// Any address elsewhere (RFC 5737): asking for the way there sends nothing.
const ELSEWHERE: &str = "192.0.2.1:9";

pub(super) const JOIN: Command = Command {
    name: "join",
    about: "Make a join code, and the line to run on the other machine",
    details: "Make a join code and print the line to run on the other machine. The code is good once and for an hour, \
              unless told otherwise, and is not shown again. It also names the hub's key, so that the machine knows whom \
              it joins.\n\
              The address in the line is --url, else api.external_url, else where this machine is found in its network.",
    examples: &[
        "holt machines join",
        "holt machines join --name nas --label site=home --label room=cellar",
        "holt machines join --ttl 24h --url https://hub.example.net",
    ],
    args: &[
        Arg::option("name", "NAME", "What the machine is called here; else its host name"),
        Arg::option("label", "NAME=VALUE", "A label of the machine").many(),
        Arg::option("ttl", "DURATION", "How long the code is good, such as 30m, 24h or 7d [default: 1h]"),
        Arg::option("url", "URL", "Address of this hub, as the machine reaches it"),
    ],
    action: Action::Run(join),
};

fn join(args: &Args, context: &Context) -> Result<(), CliError> {
    let labels = labels(args)?;
    if let Some((name, _)) = labels.iter().find(|(_, value)| value.is_empty()) {
        return Err(args.wrong("label", &format!("{name} has no value")));
    }
    let name = name(args)?.unwrap_or_default();
    let ttl = args.parsed("ttl", parse_ttl)?.unwrap_or(JOIN_CODE_TTL);
    let url = args.parsed("url", parse_url)?;
    let database = Database::create(context)?;
    let key = HubKey::read_or_make(&database.config.data_dir).map_err(CliError::failed)?;
    let url = match url.or_else(|| database.config.api.external_url.clone()) {
        Some(url) => url,
        None => {
            let (listen, is_tls, _) = hub::listens(&database.config);
            found_at(&listen, if is_tls { "https" } else { "http" })?
        }
    };
    let codes = JoinCodeStore::new(Arc::clone(&database.db));
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let (made, secret) = codes.create(name, &labels, ttl_ms, "cli").map_err(CliError::failed)?;
    database.record("machine.join_code", &made.id, &made.name);
    out!("holt agent --hub {url} --join {}", join_code(&secret, &key.fingerprint()))?;
    output::note(&format!("run this line on the other machine, once, before {} UTC", time::second(made.expires_at)));
    Ok(())
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_age(text).ok().filter(|ttl| (Duration::from_secs(1)..=JOIN_CODE_TTL_MAX).contains(ttl));
    ttl.ok_or_else(|| "give a time such as 30m, 24h or 7d, at most 30d".to_owned())
}

fn parse_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let fits = ["http", "https", "ws", "wss"].contains(&scheme)
        && !rest.is_empty()
        && !rest.contains(|c: char| c == '/' || c == '@' || c.is_whitespace() || c.is_control());
    fits.then(|| format!("{scheme}://{rest}")).ok_or_else(|| "give an address such as http://hub:8080".to_owned())
}

/// Where other machines find a hub that listens there.
fn found_at(listen: &str, scheme: &str) -> Result<String, CliError> {
    let address: SocketAddr = match listen.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}").parse(),
        None => listen.parse(),
    }
    .or_else(|_| listen.replace("localhost", "127.0.0.1").parse())
    .map_err(|_| unclear(listen))?;
    if address.ip().is_loopback() {
        return Err(CliError::Failed(format!(
            "the hub listens at {listen}, which other machines cannot reach: let it listen elsewhere (api.listen, or holt \
             serve --listen 0.0.0.0:8080), or give the --url of a proxy before it"
        )));
    }
    let ip = if address.ip().is_unspecified() { own_address().ok_or_else(|| unclear(listen))? } else { address.ip() };
    Ok(format!("{scheme}://{}", SocketAddr::new(ip, address.port())))
}

fn unclear(listen: &str) -> CliError {
    CliError::Failed(format!(
        "the hub listens at {listen}, so its address for other machines is not known; give its --url"
    ))
}

/// The address that this machine uses towards others.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_is_found_where_it_listens() {
        let check = |listen: &str, expected: Result<&str, &str>| match (found_at(listen, "http"), expected) {
            (Ok(url), Ok(expected)) => assert_eq!(url, expected),
            (Err(CliError::Failed(text)), Err(part)) => assert!(text.contains(part), "{text}"),
            (found, _) => panic!("{listen}: {found:?}"),
        };
        check("192.0.2.7:8080", Ok("http://192.0.2.7:8080"));
        check("[2001:db8::1]:80", Ok("http://[2001:db8::1]:80"));
        check("127.0.0.1:8080", Err("cannot reach"));
        check("localhost:8080", Err("cannot reach"));
        check("hub.example:80", Err("give its --url"));
    }

    #[test]
    fn addresses_have_no_path() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(parse_url(text).ok().as_deref(), expected, "{text}");
        check("hub:8080", Some("http://hub:8080"));
        check("https://hub.example/", Some("https://hub.example"));
        check("ftp://hub", None);
        check("http://hub/path", None);
        check("http://a:b@hub", None);
        check("http://a b", None);
        check("", None);
    }

    #[test]
    fn codes_are_good_for_a_second_to_a_month() {
        for (text, good) in [("1h", true), ("30d", true), ("31d", false), ("0s", false), ("soon", false)] {
            assert_eq!(parse_ttl(text).is_ok(), good, "{text}");
        }
    }
}
