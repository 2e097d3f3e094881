//! TLS: certificates of our own, and one socket type that is plain or TLS (architecture sections 2 and 3).
//!
//! `rustls` does no I/O of its own, so the same state serves the poller, which never waits, and the two pumps of a
//! WebSocket, which do: a TLS socket never blocks, whoever has to wait does so without its lock. No threads.

mod acceptor;
mod files;
mod transport;
mod trust;

use std::io;

use rustls::{CertificateError, Error};

pub use acceptor::{Acceptor, Certificate};
pub use files::TlsError;
pub use transport::Transport;
pub use trust::{client_config, client_config_of};

/// Whether an error of a [`Transport`] says that the peer speaks plain HTTP where TLS is spoken.
pub fn is_plain_http(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// What went wrong on a TLS connection that we made, for a person: what to do about it if that is known.
pub fn explain(error: &io::Error) -> String {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
        .map_or_else(|| error.to_string(), |error| format!("TLS: {}", reason(error)))
}

fn reason(error: &Error) -> String {
    use CertificateError as Bad;
    let text = match error {
        Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => {
                "its certificate is signed by nobody who is known here; give who signed it as ca_file (--ca-file)"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "its certificate has expired, or the clock of this machine is wrong"
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "its certificate is not valid yet, or the clock of this machine is wrong"
            }
            Bad::NotValidForName => "its certificate is for another name",
            Bad::NotValidForNameContext { presented, .. } => {
                return format!("its certificate is for another name: {}", names(presented));
            }
            Bad::Other(_) => {
                return format!("{bad}: a server's certificate must not be that of a CA (basicConstraints CA:FALSE)");
            }
            _ => return format!("its certificate cannot be believed: {bad}"),
        },
        Error::InvalidMessage(_) => "what answers there does not speak TLS; is it an http address?",
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// `DnsName("a")` as rustls spells it, without its spelling.
fn names(presented: &[String]) -> String {
    let bare = |text: &String| text.split('"').nth(1).map_or_else(|| text.clone(), str::to_owned);
    let names: Vec<String> = presented.iter().take(4).map(bare).collect();
    if names.is_empty() { "it names none".to_owned() } else { names.join(", ") }
}
