//! Bounds on one client address, over all workers: how many sessions or connections it has, and how fast its datagrams or
//! connections come.

use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Parts of the table, so that workers seldom meet. A power of two.
const SHARDS: usize = 64;

/// What one client address may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Sessions, or connections, at the same time; `None`: any number.
    pub sessions: Option<u32>,
    /// The rate of its datagrams, or of its connections, as the time from one to the next; `None`: any rate.
    pub interval: Option<Duration>,
    /// How many may come at once after a pause, at least 1.
    pub burst: u32,
}

impl Default for ClientLimits {
    /// None.
    fn default() -> Self {
        Self {
            sessions: None,
            interval: None,
            burst: 1,
        }
    }
}

impl ClientLimits {
    /// Whether there is none, so that clients need not be known.
    pub const fn is_none(&self) -> bool {
        self.sessions.is_none() && self.interval.is_none()
    }
}

/// A client has as many sessions as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Which of its bounds a client has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// It has as many connections as it may.
    Connections,
    /// They come faster than they may.
    Rate,
}

/// All clients of one listener that have a session.
#[derive(Debug)]
pub struct Clients<S> {
    limits: ClientLimits,
    hasher: S,
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<IpAddr, Arc<Shared>>;

#[derive(Debug, Default)]
struct Shared {
    sessions: AtomicU32,
    /// When the next datagram, or connection, would be on time, nanoseconds of the workers' clock.
    due: AtomicU64,
}

/// One place among those that a client has for sessions or connections; given back when dropped. As small as a pointer.
#[derive(Debug)]
pub struct ClientGuard(Arc<Shared>);

/// One session's part in its client; given back when dropped.
#[derive(Debug)]
pub struct Client {
    guard: ClientGuard,
    limits: ClientLimits,
}

impl<S: BuildHasher> Clients<S> {
    /// Nobody yet. `hasher` should be keyed: clients choose their addresses.
    pub fn new(limits: ClientLimits, hasher: S) -> Self {
        Self {
            limits,
            hasher,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts one more session of a client: of an IPv4 address, or of an IPv6 network of 64 bits, any address of which one
    /// host may use (RFC 4291, section 2.5.1).
    ///
    /// # Errors
    /// It has as many as it may.
    pub fn open(&self, address: IpAddr, now: Duration) -> Result<Client, TooMany> {
        Ok(Client {
            guard: self.enter(address, now)?,
            limits: self.limits,
        })
    }

    /// Whether one more connection of a client, as [`Self::open`] tells clients apart, is within its bounds; if so, it counts.
    /// What is refused for their number takes nothing from its rate. `None`: admitted, and nothing is to be given back.
    ///
    /// # Errors
    /// Which bound it has reached.
    pub fn admit(&self, address: IpAddr, now: Duration) -> Result<Option<ClientGuard>, Exceeded> {
        let guard = self.enter(address, now).map_err(|TooMany| Exceeded::Connections)?;
        if !guard.0.is_on_time(&self.limits, 1, now) {
            return Err(Exceeded::Rate);
        }
        Ok(self.limits.sessions.map(|_| guard))
    }

    fn enter(&self, address: IpAddr, now: Duration) -> Result<ClientGuard, TooMany> {
        let address = network(address);
        let shard = self.hasher.hash_one(address) as usize % SHARDS;
        let mut known = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        // Who left is forgotten when room would have to be made, not one by one; and not before its rate allows again what
        // a newcomer may: sessions of one question each would have no bound.
        if known.len() == known.capacity() && !known.contains_key(&address) {
            let now = nanos(now);
            let stays = |client: &Shared| {
                client.sessions.load(Ordering::Acquire) > 0 || client.due.load(Ordering::Acquire) > now
            };
            known.retain(|_, client| stays(client));
        }
        let shared = known.entry(address).or_default();
        let most = self.limits.sessions.unwrap_or(u32::MAX);
        let more = |open| (open < most).then(|| open + 1);
        // Counted while nobody can forget it.
        shared
            .sessions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .map_err(|_| TooMany)?;
        Ok(ClientGuard(shared.clone()))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn network(address: IpAddr) -> IpAddr {
    // Who is mapped is an IPv4 client: all of them share one network of 64 bits.
    let address = address.to_canonical();
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

impl<S> Clients<S> {
    /// Addresses in the table; some of them may have left.
    pub fn known(&self) -> usize {
        let known = |shard: &Mutex<HashMap<_, _>>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(known).sum()
    }
}

impl Client {
    /// Whether as many datagrams (several: a train) are within the client's rate; only those that are count. A train may
    /// pass as soon as its first datagram may.
    pub fn may_send(&self, count: u64, now: Duration) -> bool {
        self.guard.0.is_on_time(&self.limits, count, now)
    }
}

impl Shared {
    /// The leaky bucket as a meter (ITU-T I.371, annex A, GCRA): nothing earlier than `burst - 1` intervals before its
    /// time. Only what is on time counts.
    fn is_on_time(&self, limits: &ClientLimits, count: u64, now: Duration) -> bool {
        let Some(interval) = limits.interval else {
            return true;
        };
        let (now, interval) = (nanos(now), nanos(interval).max(1));
        let ahead = interval.saturating_mul(u64::from(limits.burst.max(1) - 1));
        let next = |due: u64| {
            (due <= now.saturating_add(ahead)).then(|| due.max(now).saturating_add(interval.saturating_mul(count)))
        };
        self.due.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}
