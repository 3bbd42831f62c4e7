//! Whether pools with `source: client` can work on this machine: looked at once, before anything is bound.
//!
//! Without the capability nothing would ever be connected, so the process does not start. A rule or a route may come later,
//! from whoever sets up the network: without them a warning says what to type. Never changes either. What is asked of
//! the kernel is in `ringway_runtime::routes`, what is missing is decided in `transparent/lack.rs`.

mod lack;

use self::lack::{Answers, Lack, missing};
use ringway_core::model::{Address, Listener, Model, Pool, PoolIndex, Protocol, Source, Target};
use ringway_runtime::Errno;
use ringway_runtime::routes::{Fate, Packet, Routes, Rule, Transport};
use ringway_runtime::socket::can_be_transparent;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Clients that are nobody's: addresses of documentation (RFC 5737, RFC 3849).
const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// Marks that are tried, at most: who has more rules with marks has them for something else.
const MARKS_MAX: usize = 32;
/// Backends of one pool that are warned of one by one.
const WARNED_MAX: usize = 8;
/// Strict, of rp_filter (the kernel's ip-sysctl).
const STRICT: u8 = 1;

/// Looks at every pool with `source: client`, and warns of what is missing.
///
/// # Errors
/// One sentence about the capability that is missing.
pub(crate) fn check(model: &Model) -> Result<(), String> {
    let transparent = |pool: &&(usize, &Pool)| pool.1.source == Source::Client;
    let pools: Vec<(usize, &Pool)> = model
        .pools
        .iter()
        .enumerate()
        .filter(|pool| transparent(&pool))
        .collect();
    for (_, pool) in &pools {
        for is_ipv6 in [false, true] {
            if addresses(pool).any(|address| address.is_ipv6() == is_ipv6) || has_names(pool) {
                may_be_transparent(&pool.name, is_ipv6)?;
            }
        }
    }
    if pools.is_empty() {
        return Ok(());
    }
    match Kernel::open() {
        Ok(mut kernel) => {
            for (index, pool) in pools {
                let feeds = |listener: &&Listener| listener.pools().contains(&PoolIndex(index));
                for listener in model.listeners.iter().filter(feeds) {
                    check_backends(pool, listener, &mut kernel);
                }
            }
        }
        Err(errno) => tracing::warn!(
            "source: client: whether answers of backends are delivered here cannot be checked, because the kernel's routing \
             cannot be asked: {errno} (under systemd add RestrictAddressFamilies=AF_NETLINK)"
        ),
    }
    Ok(())
}

fn may_be_transparent(pool: &str, is_ipv6: bool) -> Result<(), String> {
    match can_be_transparent(is_ipv6) {
        Ok(()) => Ok(()),
        Err(errno) if errno.is_refusal() => Err(format!(
            "pool {pool} has source: client, which takes the capability CAP_NET_RAW (or CAP_NET_ADMIN), and this process has \
             neither: under systemd add AmbientCapabilities=CAP_NET_RAW and CapabilityBoundingSet=CAP_NET_RAW, in a \
             container --cap-add NET_RAW, else setcap cap_net_raw+ep on the binary"
        )),
        // No family, or no descriptors: whatever connects will say so.
        Err(_) => Ok(()),
    }
}

fn addresses(pool: &Pool) -> impl Iterator<Item = SocketAddr> + '_ {
    pool.backends.iter().filter_map(|backend| match &backend.target {
        Target::Address(Address::Inet(address)) => Some(*address),
        Target::Address(Address::Unix(_)) | Target::Name(_) => None,
    })
}

fn has_names(pool: &Pool) -> bool {
    let is_name = |target: &Target| matches!(target, Target::Name(_));
    pool.backends.iter().any(|backend| is_name(&backend.target))
}

/// Where the kernel delivers the answers of a pool's backends.
fn check_backends(pool: &Pool, listener: &Listener, kernel: &mut Kernel) {
    let name = &*pool.name;
    let (transport, kept) = match listener.protocol {
        Protocol::Tcp | Protocol::Tls => (Transport::Tcp, None),
        Protocol::Udp => (Transport::Udp, kept_port(listener)),
    };
    if has_names(pool) {
        tracing::info!(
            pool = name,
            "source: client: for backends that are names nothing is checked at start"
        );
    }
    let mut lacks = 0;
    for mut address in addresses(pool) {
        address.set_port(kept.unwrap_or(address.port()));
        let backend = address.to_string();
        match kernel.look(transport, address) {
            Ok(Outcome::Delivered) => {}
            Ok(Outcome::IfMarked(mark)) => tracing::info!(
                pool = name,
                backend,
                "source: client: its answers are delivered here if a packet filter marks them with {mark:#x}; there is a \
                 rule for that mark, the filter cannot be checked"
            ),
            Ok(Outcome::Lacking(_)) if lacks == WARNED_MAX => lacks += 1,
            Ok(Outcome::Lacking(lack)) => {
                lacks += 1;
                tracing::warn!(pool = name, backend, "source: client: {lack}");
            }
            Ok(Outcome::NoWay(errno)) => tracing::warn!(
                pool = name,
                backend,
                "source: client: there is no route to it ({errno}), so it is not known where its answers come in"
            ),
            Err(errno) => tracing::warn!(
                pool = name,
                backend,
                "source: client: whether its answers are delivered here cannot be checked: {errno}"
            ),
        }
    }
    if lacks > WARNED_MAX {
        tracing::warn!(pool = name, "source: client: further backends lack the same");
    }
}

/// The port that backends of this listener are spoken to at, if it is not their own.
fn kept_port(listener: &Listener) -> Option<u16> {
    let port = |address: &Address| match address {
        Address::Inet(address) => Some(address.port()),
        Address::Unix(_) => None,
    };
    listener.bind.first().and_then(port).filter(|_| listener.udp.keep_port)
}

/// What becomes of the answers of one backend.
enum Outcome {
    Delivered,
    /// Once a packet filter has marked them so.
    IfMarked(u32),
    Lacking(Lack),
    /// There is no route to the backend.
    NoWay(Errno),
}

/// The kernel's routing, asked.
struct Kernel {
    routes: Routes,
    v4: Known,
    v6: Known,
}

/// What was listed of one family; empty where the machine does not have it.
struct Known {
    rules: Vec<Rule>,
    /// Those that deliver everything.
    tables: Vec<u32>,
}

impl Kernel {
    fn open() -> Result<Self, Errno> {
        let mut routes = Routes::open()?;
        let mut known = |is_ipv6| Known {
            rules: routes.rules(is_ipv6).unwrap_or_default(),
            tables: routes.tables_that_deliver(is_ipv6).unwrap_or_default(),
        };
        let (v4, v6) = (known(false), known(true));
        Ok(Self { routes, v4, v6 })
    }

    fn look(&mut self, transport: Transport, backend: SocketAddr) -> Result<Outcome, Errno> {
        let (client, known) = if backend.is_ipv6() {
            (CLIENT_V6, &self.v6)
        } else {
            (CLIENT_V4, &self.v4)
        };
        let request = Packet {
            from: None,
            to: backend.ip(),
            comes_in: None,
            mark: 0,
        };
        let comes_in = match self.routes.fate(&request)? {
            Fate::Delivered => None,
            Fate::Elsewhere { interface, .. } => Some(interface),
            Fate::Refused(errno) => return Ok(Outcome::NoWay(errno)),
        };
        let answer = Packet {
            from: Some((transport, backend)),
            to: client,
            comes_in,
            mark: 0,
        };
        let fate = self.routes.fate(&answer)?;
        if fate == Fate::Delivered {
            return Ok(Outcome::Delivered);
        }
        let marks: BTreeSet<u32> = known.rules.iter().map(|rule| rule.mark & rule.mask).collect();
        for mark in marks.into_iter().filter(|&mark| mark != 0).take(MARKS_MAX) {
            if self.routes.fate(&Packet { mark, ..answer })? == Fate::Delivered {
                return Ok(Outcome::IfMarked(mark));
            }
        }
        let interface = match comes_in {
            Some(index) => self.routes.interface_name(index)?,
            None => "lo".to_owned(),
        };
        let answers = Answers {
            transport,
            backend,
            client,
            is_own: comes_in.is_none(),
        };
        let is_strict = refuses_senders(fate) && rp_filter(&interface) == STRICT;
        let missing = missing(&known.rules, &known.tables, &answer, &interface, fate);
        Ok(Outcome::Lacking(Lack {
            answers,
            interface,
            missing,
            is_strict,
        }))
    }
}

/// The sender must not come in there.
fn refuses_senders(fate: Fate) -> bool {
    match fate {
        Fate::Refused(errno) => errno.refuses_sender(),
        Fate::Delivered | Fate::Elsewhere { .. } => false,
    }
}

/// The larger of the interface's and the machine's value counts (the kernel's ip-sysctl). IPv6 has none.
fn rp_filter(interface: &str) -> u8 {
    let value = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    value("all").max(value(interface))
}
