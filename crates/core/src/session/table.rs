//! The sessions of one listener of one worker.

use super::wheel::{Links, Slots, Wheel};
use crate::reason::EndReason;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::time::Duration;

/// The wheel's tick is this part of the shorter timeout: how late a session may end.
const TICKS_PER_TIMEOUT: u32 = 16;

/// What a session is recognised by, besides its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// IPv4 stands as its mapped form: a listener's address says which of the two it was.
    ip: u128,
    scope: u32,
    port: u16,
    socket: u16,
    backend: u32,
    /// Whom the balancer at that address named as its client, by number; it costs no room.
    named: Option<NonZeroU32>,
}

const _: () = assert!(size_of::<Key>() == 32);

impl Key {
    /// Any backend will do: the client's datagrams stay together.
    pub const ANY_BACKEND: u32 = u32::MAX;

    /// `socket`: which of the listener's sockets it came in through. `backend`: which one it goes to, where each datagram
    /// is balanced by itself; otherwise [`Self::ANY_BACKEND`].
    pub fn new(sender: SocketAddr, socket: u16, backend: u32) -> Self {
        let (ip, scope) = match sender {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().to_bits(), 0),
            SocketAddr::V6(v6) => (v6.ip().to_bits(), v6.scope_id()),
        };
        Self {
            ip,
            scope,
            port: sender.port(),
            socket,
            backend,
            named: None,
        }
    }

    /// The same of one of many clients behind that address, which a balancer there names in front of each datagram.
    pub const fn of_named(self, number: NonZeroU32) -> Self {
        Self {
            named: Some(number),
            ..self
        }
    }

    /// Which of the listener's sockets it came in through.
    pub const fn socket(&self) -> u16 {
        self.socket
    }

    /// Where its datagrams come from and answers go to: the client, or the balancer that named it. A listener of IPv6 speaks
    /// nothing else (IPV6_V6ONLY), so a mapped one was IPv4.
    pub fn sender(&self) -> SocketAddr {
        let ip = Ipv6Addr::from_bits(self.ip);
        match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), self.port),
            None => SocketAddr::V6(SocketAddrV6::new(ip, self.port, 0, self.scope)),
        }
    }
}

/// When a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// No datagram either way for this long, once the backend has answered.
    pub timeout: Duration,
    /// The same until it has answered: what a flood opens is gone soon.
    pub unanswered_timeout: Duration,
    /// Datagrams of the client after which its next one opens another session; `None`: any number.
    pub requests: Option<u32>,
    /// Answers to each datagram of the client; with as many the session is over. `None`: not counted.
    pub responses: Option<u32>,
}

impl Rules {
    fn timeout(&self, answered: bool) -> Duration {
        if answered {
            self.timeout
        } else {
            self.timeout.min(self.unanswered_timeout)
        }
    }
}

/// Names a session; of one that is over it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    slot: u32,
    generation: u32,
}

impl Id {
    /// One number, for those who keep only numbers.
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// What [`Self::pack`] made.
    pub const fn unpack(packed: u64) -> Self {
        Self {
            slot: packed as u32,
            generation: (packed >> 32) as u32,
        }
    }
}

/// A session.
#[derive(Debug)]
pub struct Entry<T> {
    /// What it is recognised by.
    pub key: Key,
    /// What its owner keeps for it.
    pub state: T,
    /// When it was opened.
    pub opened: Duration,
    /// Datagrams of the client that were passed on.
    pub requests: u64,
    /// Datagrams of the backend that were passed on.
    pub responses: u64,
    last: Duration,
    /// The client's last one; when it was opened, before there is any.
    last_request: Duration,
    /// The first datagram of the client since the backend's last.
    waiting_since: Option<Duration>,
    /// The client's next datagram belongs to it.
    current: bool,
}

impl<T> Entry<T> {
    /// The last datagram either way.
    pub const fn last(&self) -> Duration {
        self.last
    }

    /// The client's last datagram.
    pub const fn last_request(&self) -> Duration {
        self.last_request
    }

    /// For how long the client has sent and the backend been silent.
    pub fn unanswered(&self, now: Duration) -> Duration {
        self.waiting_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Another backend takes the session over: it has not been silent yet.
    pub fn forgive(&mut self) {
        self.waiting_since = None;
    }

    /// Whether the backend has answered.
    pub const fn is_answered(&self) -> bool {
        self.responses > 0
    }
}

/// A session that is over, for its owner to take down.
#[derive(Debug)]
pub struct Closed<T> {
    /// What it was called.
    pub id: Id,
    /// What it was.
    pub entry: Entry<T>,
}

struct Slot<T> {
    generation: u32,
    links: Links,
    entry: Option<Entry<T>>,
}

/// Sessions of one listener of one worker.
pub struct Table<T, S> {
    rules: Rules,
    by_key: HashMap<Key, u32, S>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    wheel: Wheel,
    opened: u64,
}

impl<T> Slots for Vec<Slot<T>> {
    fn links(&mut self, slot: u32) -> &mut Links {
        &mut self[slot as usize].links
    }
}

impl<T, S: BuildHasher> Table<T, S> {
    /// Without sessions. `hasher` should be keyed: clients choose their addresses.
    pub fn new(rules: Rules, hasher: S, now: Duration) -> Self {
        let shorter = rules.timeout.min(rules.unanswered_timeout);
        Self {
            rules,
            by_key: HashMap::with_hasher(hasher),
            slots: Vec::new(),
            free: Vec::new(),
            wheel: Wheel::new(shorter / TICKS_PER_TIMEOUT, now),
            opened: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there ever were.
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// The session that the client's next datagram belongs to, if it is not to open another.
    pub fn find(&self, key: &Key) -> Option<Id> {
        let &slot = self.by_key.get(key)?;
        Some(self.id(slot))
    }

    fn id(&self, slot: u32) -> Id {
        Id {
            slot,
            generation: self.slots[slot as usize].generation,
        }
    }

    /// A session that is not over.
    pub fn get(&self, id: Id) -> Option<&Entry<T>> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.entry.as_ref().filter(|_| slot.generation == id.generation)
    }

    /// The same, to change what its owner keeps.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Entry<T>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.entry.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// What the next session that is opened will be called.
    pub fn next_id(&self) -> Id {
        let slot = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(slot as usize).map_or(0, |place| place.generation);
        Id {
            slot,
            generation: generation.wrapping_add(1),
        }
    }

    /// What a session will be called after [`Self::renew`].
    pub fn renewed(&self, id: Id) -> Id {
        Id {
            generation: id.generation.wrapping_add(1),
            ..id
        }
    }

    /// Gives a session another name: what still comes under the old one, of a socket that it has no more, means nothing.
    pub fn renew(&mut self, id: Id) -> Option<Id> {
        self.get(id)?;
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        Some(self.id(id.slot))
    }

    /// Opens a session. One that had the same key goes on for its answers only.
    pub fn open(&mut self, key: Key, state: T, now: Duration) -> Id {
        let entry = Entry {
            key,
            state,
            opened: now,
            requests: 0,
            responses: 0,
            last: now,
            last_request: now,
            waiting_since: None,
            current: true,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).expect("fewer sessions than descriptors, which are 31 bits");
            self.slots.push(Slot {
                generation: 0,
                links: Links::UNLINKED,
                entry: None,
            });
            slot
        });
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.entry = Some(entry);
        if let Some(before) = self.by_key.insert(key, slot)
            && let Some(entry) = &mut self.slots[before as usize].entry
        {
            entry.current = false;
        }
        self.opened += 1;
        let at = now + self.rules.timeout(false);
        self.wheel.insert(&mut self.slots, slot, at);
        self.id(slot)
    }

    /// As many datagrams of the client (several: a train) are passed on in this session. With the last of its `requests` the
    /// next one will open another session.
    pub fn request(&mut self, id: Id, count: u64, now: Duration) {
        let Rules { requests, .. } = self.rules;
        let Some(entry) = self.get_mut(id) else { return };
        entry.requests += count;
        entry.last = now;
        entry.last_request = now;
        entry.waiting_since.get_or_insert(now);
        if entry.current && requests.is_some_and(|most| entry.requests >= u64::from(most)) {
            entry.current = false;
            let key = entry.key;
            self.by_key.remove(&key);
        }
    }

    /// As many datagrams of the backend are passed on in this session. `true`: that was the last one expected, close it.
    #[must_use]
    pub fn response(&mut self, id: Id, count: u64, now: Duration) -> bool {
        let Rules { responses, .. } = self.rules;
        let Some(entry) = self.get_mut(id) else { return false };
        entry.responses += count;
        entry.last = now;
        entry.waiting_since = None;
        responses.is_some_and(|each| entry.responses >= u64::from(each) * entry.requests)
    }

    /// Ends a session.
    pub fn close(&mut self, id: Id) -> Option<Closed<T>> {
        self.get(id)?;
        self.wheel.remove(&mut self.slots, id.slot);
        let entry = self.slots[id.slot as usize].entry.take()?;
        self.free.push(id.slot);
        if entry.current
            && let Place::Occupied(place) = self.by_key.entry(entry.key)
        {
            place.remove();
        }
        Some(Closed { id, entry })
    }

    /// Ends the next session whose time is over by `now`, or that is `to_end` for another reason; `None`: no more for now.
    /// At most a tick late; for the other reasons it is looked at about once in its timeout.
    pub fn expire(
        &mut self,
        now: Duration,
        to_end: impl Fn(&Entry<T>) -> Option<EndReason>,
    ) -> Option<(Closed<T>, EndReason)> {
        while let Some(slot) = self.wheel.pop(&mut self.slots, now) {
            let place = &self.slots[slot as usize];
            let Some(entry) = &place.entry else { continue };
            let over = entry.last + self.rules.timeout(entry.is_answered());
            let reason = if over > now {
                to_end(entry)
            } else {
                Some(EndReason::SessionTimeout)
            };
            let Some(reason) = reason else {
                self.wheel.insert(&mut self.slots, slot, over);
                continue;
            };
            let id = self.id(slot);
            return self.close(id).map(|closed| (closed, reason));
        }
        None
    }

    /// When to call [`Self::expire`] again; `None`: there is no session.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.wheel.next()
    }

    /// All sessions, in no order. For rare occasions: it looks at every one.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        let taken = |(at, slot): (usize, &Slot<T>)| slot.entry.is_some().then_some(at as u32);
        self.slots
            .iter()
            .enumerate()
            .filter_map(taken)
            .map(|slot| self.id(slot))
    }
}

impl<T, S> std::fmt::Debug for Table<T, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("sessions", &(self.slots.len() - self.free.len()))
            .finish_non_exhaustive()
    }
}
