//! Where a connection comes from, and what it came to: small, for there may be very many.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;

/// One end of a connection; shown as Redis does: `ip:port`, or a Unix socket's path with port 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6: larger, and rarer.
    V6(Box<SocketAddrV6>),
    /// The path of the Unix socket that is listened on.
    Unix(Arc<PathBuf>),
}

impl Address {
    /// A port of this machine.
    pub fn loopback(port: u16) -> Address {
        Address::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    /// Whether it can only be on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Address::V4(address) => address.ip().is_loopback(),
            Address::V6(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        }
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(address) => Address::V4(address),
            SocketAddr::V6(address) => Address::V6(Box::new(address)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::V4(address) => address.fmt(out),
            Address::V6(address) => address.fmt(out),
            Address::Unix(path) => write!(out, "{}:0", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_redis_shows_them() {
        let tcp = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
        for (text, local) in [
            ("127.0.0.1:6379", true),
            ("10.0.0.1:1", false),
            ("[::1]:6379", true),
            ("[2001:db8::1]:6379", false),
        ] {
            assert_eq!(tcp(text).to_string(), text);
            assert_eq!(tcp(text).is_local(), local, "{text}");
            assert!(!tcp(text).is_unix());
        }
        let unix = Address::Unix(Arc::new("/run/socket".into()));
        assert_eq!(unix.to_string(), "/run/socket:0");
        assert!(unix.is_local() && unix.is_unix());
    }
}
