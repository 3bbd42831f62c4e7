//! Connections of which it is not known yet where they go: at most so many, and the oldest make room.
//!
//! Whoever opens connections and says nothing can hold places only as long as nobody else comes. Decides who has to go,
//! exactly over all workers; knows no sockets and does not end anybody. Each worker has a room of its own, which nobody
//! else locks as long as there is room for all.

use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

/// The connections that wait, of all workers. `T` is what it takes to end one.
#[derive(Debug)]
pub struct Unrouted<T> {
    connections_max: u32,
    /// Of each worker.
    bytes_max: u64,
    connections: AtomicU32,
    rooms: Box<[Mutex<Room<T>>]>,
}

/// Those of one worker, in the order in which they came.
#[derive(Debug)]
struct Room<T> {
    next: u64,
    bytes: u64,
    waiting: BTreeMap<u64, Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    since: Duration,
    bytes: u32,
    connection: T,
}

/// A connection's place among those of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    worker: usize,
    number: u64,
}

impl<T> Unrouted<T> {
    /// Room for this many connections (at least one) of so many workers; those of each worker may hold this many bytes
    /// together.
    pub fn new(connections_max: u32, bytes_max: u64, workers: usize) -> Self {
        let room = || Room {
            next: 0,
            bytes: 0,
            waiting: BTreeMap::new(),
        };
        Self {
            connections_max: connections_max.max(1),
            bytes_max,
            connections: AtomicU32::new(0),
            rooms: (0..workers).map(|_| Mutex::new(room())).collect(),
        }
    }

    fn room(&self, worker: usize) -> MutexGuard<'_, Room<T>> {
        self.rooms[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of a worker wait.
    pub fn len(&self, worker: usize) -> usize {
        self.room(worker).waiting.len()
    }

    /// Bytes that those of a worker hold together.
    pub fn bytes(&self, worker: usize) -> u64 {
        self.room(worker).bytes
    }

    /// One more connection of a worker, at this time of the clock that all share. Returns as well who has to go for it, if
    /// anybody: it has left already.
    pub fn enter(&self, worker: usize, since: Duration, connection: T) -> (Place, Option<T>) {
        // Counted first: another worker may make it go as soon as it is there.
        let before = self.connections.fetch_add(1, Ordering::AcqRel);
        let mut room = self.room(worker);
        let number = room.next;
        room.next += 1;
        let waiting = Waiting {
            since,
            bytes: 0,
            connection,
        };
        room.waiting.insert(number, waiting);
        drop(room);
        let displaced = if before >= self.connections_max {
            self.take_oldest()
        } else {
            None
        };
        (Place { worker, number }, displaced)
    }

    /// The oldest of all. Whoever leaves meanwhile has made the room that was wanted.
    fn take_oldest(&self) -> Option<T> {
        if self.connections.load(Ordering::Acquire) <= self.connections_max {
            return None;
        }
        let oldest = |worker: usize| {
            let since = self.room(worker).waiting.first_key_value()?.1.since;
            Some((since, worker))
        };
        let (_, worker) = (0..self.rooms.len()).filter_map(oldest).min()?;
        let mut room = self.room(worker);
        let (&number, _) = room.waiting.first_key_value()?;
        self.remove(&mut room, number)
    }

    /// The oldest of all for which `is_one` holds, if it came before `before`; it has left then. For whoever needs room that
    /// those hold beside the places here.
    pub fn take(&self, before: Duration, is_one: impl Fn(&T) -> bool) -> Option<T> {
        let first = |worker: usize| {
            let room = self.room(worker);
            let mut waiting = room.waiting.iter();
            let (&number, found) = waiting.find(|(_, waiting)| is_one(&waiting.connection))?;
            (found.since < before).then_some((found.since, worker, number))
        };
        let (_, worker, number) = (0..self.rooms.len()).filter_map(first).min()?;
        let mut room = self.room(worker);
        self.remove(&mut room, number)
    }

    /// A connection holds this many bytes now. Returns who of the same worker has to go, the oldest first, which may be
    /// this one; each has left already.
    pub fn hold(&self, place: Place, bytes: u32) -> Vec<T> {
        let mut room = self.room(place.worker);
        if let Some(waiting) = room.waiting.get_mut(&place.number) {
            let before = std::mem::replace(&mut waiting.bytes, bytes);
            room.bytes = room.bytes - u64::from(before) + u64::from(bytes);
        }
        let mut displaced = Vec::new();
        while room.bytes > self.bytes_max {
            // Those that hold nothing would make no room.
            let holder = room.waiting.iter().find(|(_, waiting)| waiting.bytes > 0);
            let Some((&number, _)) = holder else { break };
            displaced.extend(self.remove(&mut room, number));
        }
        displaced
    }

    /// A connection is routed, or has ended. Nothing happens if it had to go before.
    pub fn leave(&self, place: Place) {
        let mut room = self.room(place.worker);
        let left = self.remove(&mut room, place.number);
        drop(room);
        // Not under the lock: it is somebody else's code, perhaps.
        drop(left);
    }

    fn remove(&self, room: &mut Room<T>, number: u64) -> Option<T> {
        let waiting = room.waiting.remove(&number)?;
        room.bytes -= u64::from(waiting.bytes);
        self.connections.fetch_sub(1, Ordering::AcqRel);
        Some(waiting.connection)
    }
}
