//! Addresses of listeners and backends, and free ports for them.
//!
//! Ports are drawn below the range from which the kernel takes source ports, so that no outgoing connection of a test
//! (or its TIME_WAIT) can sit on a port between drawing and binding.

use crate::seeded::Rng;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;

/// Where something listens; written as the configuration wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Inet(SocketAddr),
    /// The path of a UNIX stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// The port; 0 for a UNIX socket.
    pub fn port(&self) -> u16 {
        match self {
            Self::Inet(address) => address.port(),
            Self::Unix(_) => 0,
        }
    }
}

/// 127.0.0.1 with port 0: the kernel chooses.
pub const ANY_V4: Address = Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
/// `::1` with port 0: the kernel chooses.
pub const ANY_V6: Address = Address::Inet(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0));

/// A port on 127.0.0.1 where nothing listens; drawn once per process.
pub fn free_v4() -> Address {
    free_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A port on `::1` where nothing listens; drawn once per process.
pub fn free_v6() -> Address {
    free_on(IpAddr::V6(Ipv6Addr::LOCALHOST))
}

/// A port below 1024 on 127.0.0.1 where nothing listens. Needs root to find out.
pub fn free_privileged() -> Address {
    let mut rng = Rng::from_time();
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 600 + rng.below(400) as u16));
        if TcpListener::bind(address).is_ok() {
            return Address::Inet(address);
        }
    }
    panic!("no privileged port could be bound: is this root?");
}

fn free_on(ip: IpAddr) -> Address {
    static DRAWN: Mutex<Option<(Rng, Vec<u16>)>> = Mutex::new(None);
    let mut drawn = DRAWN.lock().expect("no test panics while it draws a port");
    let (rng, used) = drawn.get_or_insert_with(|| (Rng::from_time(), Vec::new()));
    for _ in 0..1000 {
        let port = 10_240 + rng.below(22_000) as u16;
        if !used.contains(&port) && TcpListener::bind((ip, port)).is_ok() {
            used.push(port);
            return Address::Inet(SocketAddr::new(ip, port));
        }
    }
    panic!("no free port was found on {ip} in 1000 tries");
}
