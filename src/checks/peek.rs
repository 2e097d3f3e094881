//! A TLS handshake that only looks: which certificates does this peer show, and until when? Trust is not checked, nothing
//! is sent, and nothing that the peer says is believed.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::x509::Certificate;
use crate::net::{NetError, Wire};
use crate::rt::{Cancel, lock};

/// Longest line and most lines of a mail server before TLS begins.
const LINE_BYTES_MAX: usize = 1024;
const LINES_MAX: usize = 64;

/// Whom to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that is asked for in the handshake.
    pub(super) sni: String,
}

impl Endpoint {
    /// `host`, `host:port`, `[v6]:port`, each with `@sni` or without (contract agent-link 7.5, 11).
    pub(super) fn parse(text: &str, port: u16) -> Option<Self> {
        let (address, sni) = text.split_once('@').map_or((text, None), |(address, sni)| (address, Some(sni)));
        let (host, port) = host_and_port(address, Some(port))?;
        let sni = sni.unwrap_or(&host);
        (!sni.is_empty()).then(|| Self { sni: sni.to_owned(), host: host.clone(), port })
    }
}

/// `host:port` in its parts, an IPv6 address in brackets or, without a port, bare; None when it is neither.
pub(super) fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let port = port.map_or(default, |port| port.parse().ok().filter(|port| *port > 0))?;
    let fine = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    fine.then(|| (host.to_owned(), port))
}

/// What is spoken before TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// SMTP and its `STARTTLS` (RFC 3207).
    Smtp,
}

/// Keeps what it is shown.
#[derive(Debug)]
struct Looker {
    provider: Arc<CryptoProvider>,
    /// Guarded by the mutex: the chain, once it came.
    chain: Mutex<Vec<Vec<u8>>>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *lock(&self.chain) = std::iter::once(end_entity).chain(intermediates).map(|one| one.to_vec()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificates that a peer shows, its own first. The error is for the reader of an alert.
pub(super) fn chain(
    endpoint: &Endpoint,
    before: Before,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<Vec<Certificate>, String> {
    let mut wire = Wire::connect(&endpoint.host, endpoint.port, deadline, cancel).map_err(|error| error.to_string())?;
    if before == Before::Smtp {
        start_smtp(&mut wire)?;
    }
    let provider = Arc::new(ring::default_provider());
    let looker = Arc::new(Looker { provider: Arc::clone(&provider), chain: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&looker) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(endpoint.sni.clone()).map_err(|_| format!("{:?} is no host name", endpoint.sni))?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut failed = None;
    while tls.is_handshaking() && failed.is_none() {
        failed = tls.complete_io(&mut wire).err();
    }
    // A polite end; whether the peer still listens does not matter.
    tls.send_close_notify();
    let _ = tls.write_tls(&mut wire);
    // A peer that wants a certificate of ours hangs up, but has shown its own.
    let chain = std::mem::take(&mut *lock(&looker.chain));
    if chain.is_empty() {
        return Err(match failed {
            Some(error) if error.kind() == io::ErrorKind::InvalidData => format!("TLS: {error}"),
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                NetError::Cut { cause: "in the TLS handshake".to_owned() }.to_string()
            }
            Some(error) => wire.failure(&error).to_string(),
            None => "TLS: the peer showed no certificate".to_owned(),
        });
    }
    chain
        .iter()
        .map(|der| Certificate::parse(der))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| "TLS: the peer shows a certificate that cannot be read".to_owned())
}

fn start_smtp(wire: &mut Wire<'_>) -> Result<(), String> {
    for (say, wanted) in [("", "220"), ("EHLO localhost\r\n", "250"), ("STARTTLS\r\n", "220")] {
        wire.write_all(say.as_bytes()).map_err(|error| wire.failure(&error).to_string())?;
        let reply = smtp_reply(wire)?;
        if !reply.starts_with(wanted) {
            let step = if say.is_empty() { "greeting" } else { say.trim_end() };
            let shown: String = reply.chars().filter(|char| !char.is_control()).take(80).collect();
            return Err(format!("SMTP {step}: the server says {shown:?}"));
        }
    }
    Ok(())
}

/// The last line of a reply (RFC 5321 4.2.1). Read byte by byte: what follows belongs to TLS.
fn smtp_reply(wire: &mut Wire<'_>) -> Result<String, String> {
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            match wire.read(&mut byte) {
                Ok(0) => return Err("SMTP: the server hung up".to_owned()),
                Ok(_) if line.len() < LINE_BYTES_MAX => line.push(byte[0]),
                Ok(_) => return Err("SMTP: a line without end".to_owned()),
                Err(error) => return Err(wire.failure(&error).to_string()),
            }
        }
        if line.get(3) != Some(&b'-') {
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }
    Err("SMTP: a reply without end".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::x509::tests::LASTING;
    use super::*;
    use crate::net::test_peer::{LONG, STACK_BYTES};
    use crate::rt::Threads;
    use base64::Engine;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection};
    use std::net::TcpListener;
    use std::time::Duration;

    fn der(pem: &str) -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(body).unwrap()
    }

    /// A server that shows these certificates to everybody, `n` times, after playing `dialog`: what it says, and the
    /// line that must come before it. `own` runs on each connection once TLS is up.
    pub(in crate::checks) fn tls_server(
        pems: &[&str],
        n: usize,
        dialog: &'static [(&'static str, &'static str)],
        answer: &'static [u8],
    ) -> (u16, Threads) {
        let chain = pems.iter().map(|pem| CertificateDer::from(der(pem))).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der(include_str!("fixtures/key.pem"))));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let threads = Threads::new();
        threads
            .spawn("tls-server", STACK_BYTES, move || {
                for _ in 0..n {
                    let (mut socket, _) = listener.accept().unwrap();
                    for (wanted, says) in dialog {
                        let mut heard = vec![0; wanted.len()];
                        socket.read_exact(&mut heard).unwrap();
                        assert_eq!(String::from_utf8(heard).unwrap(), *wanted);
                        socket.write_all(says.as_bytes()).unwrap();
                    }
                    let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
                    // Ends when the client does.
                    if !answer.is_empty() && stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                        let _ = stream.write_all(answer);
                        stream.conn.send_close_notify();
                    }
                    let _ = stream.flush().and_then(|()| stream.read_to_end(&mut Vec::new()));
                }
            })
            .unwrap();
        (port, threads)
    }

    fn look(port: u16, before: Before, within: Duration) -> Result<Vec<Certificate>, String> {
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port, sni: "holt.test".to_owned() };
        chain(&endpoint, before, Instant::now() + within, &Cancel::new())
    }

    /// A peer that says `says` and then does nothing until the client is gone.
    fn plain_peer(says: Vec<u8>) -> (u16, Threads) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let threads = Threads::new();
        threads
            .spawn("peer", STACK_BYTES, move || {
                let (mut socket, _) = listener.accept().unwrap();
                // The client may hang up in the middle of a flood.
                let _ = socket.write_all(&says);
                let _ = socket.read_to_end(&mut Vec::new());
            })
            .unwrap();
        (port, threads)
    }

    #[test]
    fn the_whole_chain_is_seen_though_nobody_trusts_it() {
        let ended = include_str!("fixtures/ended.pem");
        let (port, threads) = tls_server(&[LASTING, ended], 1, &[], b"");
        let seen = look(port, Before::Nothing, LONG).unwrap();
        assert_eq!(seen.iter().map(|one| one.subject.as_str()).collect::<Vec<_>>(), ["holt.test", "old.test"]);
        assert!(threads.join_all(LONG).is_empty());
    }

    #[test]
    fn a_mail_server_is_asked_for_tls_first() {
        let dialog = &[
            ("", "220-hi\r\n220 there\r\n"),
            ("EHLO localhost\r\n", "250-x\r\n250 y\r\n"),
            ("STARTTLS\r\n", "220 go\r\n"),
        ];
        let (port, threads) = tls_server(&[LASTING], 1, dialog, b"");
        assert_eq!(look(port, Before::Smtp, LONG).unwrap().len(), 1);
        assert!(threads.join_all(LONG).is_empty());
    }

    #[test]
    fn peers_that_do_not_speak_tls_are_told_apart() {
        let check = |says: &[u8], before: Before, within: Duration, part: &str| {
            let (port, threads) = plain_peer(says.to_vec());
            let error = look(port, before, within).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(threads.join_all(LONG).is_empty());
        };
        let soon = Duration::from_millis(60);
        check(b"", Before::Nothing, soon, "time-out");
        check(b"SSH-2.0-x\r\nmore", Before::Nothing, LONG, "TLS: ");
        check(&b"\x16".repeat(70_000), Before::Nothing, LONG, "TLS: ");
        check(b"220 hi\r\n502 no\r\n", Before::Smtp, LONG, "SMTP EHLO localhost: the server says \"502 no\"");
        check(b"554 \x1b[2Jgo away\r\n", Before::Smtp, LONG, "SMTP greeting: the server says \"554 [2Jgo away\"");
        check(&b"220-x\r\n".repeat(1000), Before::Smtp, LONG, "a reply without end");
        check(&[b'2'; 5000], Before::Smtp, LONG, "a line without end");
        check(b"220", Before::Smtp, soon, "time-out");
    }

    #[test]
    fn endpoints_are_read() {
        let check = |text: &str, expected: Option<(&str, u16, &str)>| {
            let found = Endpoint::parse(text, 443);
            let found = found.as_ref().map(|found| (found.host.as_str(), found.port, found.sni.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("example.org", Some(("example.org", 443, "example.org")));
        check("example.org:8443@www.example.org", Some(("example.org", 8443, "www.example.org")));
        check("10.0.0.1@nas.local", Some(("10.0.0.1", 443, "nas.local")));
        check("[::1]:853", Some(("::1", 853, "::1")));
        check("fe80::1", Some(("fe80::1", 443, "fe80::1")));
        check("[::1]", Some(("::1", 443, "::1")));
        for wrong in ["", ":443", "a:0", "a:x", "a:70000", "https://a", "a b", "a@", "[::1", "[::1]x"] {
            check(wrong, None);
        }
    }
}
