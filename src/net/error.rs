//! Why an outbound call failed.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Name lookup, TCP and TLS.
    Connect,
    /// From the connection to the first byte of the answer's body.
    FirstByte,
    /// No byte for this long in the middle of an answer.
    Idle,
    Total,
}

/// Why an outbound call failed. Holds facts; `Display` is for the log. Holds no address with credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The caller's [`crate::rt::Cancel`] was used.
    Cancelled,
    /// Not an absolute `http` or `https` address, or a header that cannot be sent.
    BadUrl {
        cause: String,
    },
    /// The address filter allows none of the addresses of the host; this is one of them. Nothing was connected to.
    Refused {
        address: IpAddr,
    },
    /// No connection: refused by the peer, no route, unknown name, TLS failure.
    Connect {
        cause: String,
    },
    Timeout {
        phase: Phase,
        after: Duration,
    },
    /// The connection ended in the middle of an answer.
    Cut {
        cause: String,
    },
    /// The answer is not HTTP as it should be.
    Decode {
        cause: String,
    },
    /// The answer is larger than the caller takes.
    TooLarge {
        bytes_max: usize,
    },
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "connect",
            Phase::FirstByte => "first byte",
            Phase::Idle => "idle",
            Phase::Total => "total",
        })
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::BadUrl { cause } => write!(f, "address or header: {cause}"),
            Self::Refused { address } => write!(f, "address {address} is not allowed"),
            Self::Connect { cause } => write!(f, "connect: {cause}"),
            Self::Timeout { phase, after } => write!(f, "time-out: {phase} after {after:?}"),
            Self::Cut { cause } => write!(f, "answer cut off: {cause}"),
            Self::Decode { cause } => write!(f, "answer not understood: {cause}"),
            Self::TooLarge { bytes_max } => write!(f, "answer larger than {bytes_max} bytes"),
        }
    }
}

impl std::error::Error for NetError {}
