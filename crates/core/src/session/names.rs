//! Clients that a balancer in front names, as numbers: a session's key is no longer than where nobody is named.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;

/// The clients that have a session of one listener of one worker, each with a number of its own for as long.
pub struct Names<S> {
    known: Rc<RefCell<Known<S>>>,
}

struct Known<S> {
    numbers: HashMap<SocketAddr, NonZeroU32, S>,
    /// Names of each number, from 1 on.
    users: Vec<u32>,
    free: Vec<NonZeroU32>,
}

/// One session's share in its client's number; given back when dropped.
pub struct Name<S: BuildHasher> {
    known: Rc<RefCell<Known<S>>>,
    client: SocketAddr,
    number: NonZeroU32,
}

impl<S: BuildHasher> Names<S> {
    /// Nobody yet. `hasher` should be keyed: clients choose their addresses.
    pub fn new(hasher: S) -> Self {
        let known = Known {
            numbers: HashMap::with_hasher(hasher),
            users: Vec::new(),
            free: Vec::new(),
        };
        Self {
            known: Rc::new(RefCell::new(known)),
        }
    }

    /// A client's number; `None`: it has no session.
    pub fn find(&self, client: SocketAddr) -> Option<NonZeroU32> {
        self.known.borrow().numbers.get(&client).copied()
    }

    /// The same for one more session of a client, which may be its first.
    pub fn take(&self, client: SocketAddr) -> Name<S> {
        let mut known = self.known.borrow_mut();
        let number = known.numbers.get(&client).copied();
        let number = number.unwrap_or_else(|| known.introduce(client));
        known.users[number.get() as usize - 1] += 1;
        drop(known);
        Name {
            known: self.known.clone(),
            client,
            number,
        }
    }

    /// How many have a number.
    pub fn len(&self) -> usize {
        self.known.borrow().numbers.len()
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S: BuildHasher> Known<S> {
    fn introduce(&mut self, client: SocketAddr) -> NonZeroU32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.users.push(0);
            let count = u32::try_from(self.users.len()).ok().and_then(NonZeroU32::new);
            count.expect("fewer clients than sessions, which are fewer than descriptors")
        });
        self.numbers.insert(client, number);
        number
    }
}

impl<S: BuildHasher> Name<S> {
    /// Never that of another client that has a session.
    pub const fn number(&self) -> NonZeroU32 {
        self.number
    }
}

impl<S: BuildHasher> Drop for Name<S> {
    fn drop(&mut self) {
        let mut known = self.known.borrow_mut();
        let users = &mut known.users[self.number.get() as usize - 1];
        *users -= 1;
        if *users == 0 {
            known.numbers.remove(&self.client);
            known.free.push(self.number);
        }
    }
}

impl<S: BuildHasher> fmt::Debug for Name<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Name").field(&self.client).field(&self.number).finish()
    }
}

impl<S: BuildHasher> fmt::Debug for Names<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("known", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::RandomState;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_client_has_one_number_for_as_long_as_it_has_a_session() {
        let names = Names::new(RandomState::new());
        assert_eq!(names.find(client(1)), None);
        let (first, again, other) = (names.take(client(1)), names.take(client(1)), names.take(client(2)));
        assert_eq!(first.number(), again.number());
        assert_ne!(first.number(), other.number());
        drop(first);
        assert_eq!(names.find(client(1)), Some(again.number()), "another session has it");
        drop(again);
        assert_eq!((names.find(client(1)), names.len()), (None, 1));
        assert_ne!(names.take(client(3)).number(), other.number());
        drop(other);
        assert!(names.is_empty());
    }

    #[test]
    fn numbers_are_used_again() {
        let names = Names::new(RandomState::new());
        for port in 1..1_000 {
            let _held = [names.take(client(port)), names.take(client(port + 1))];
        }
        assert_eq!(names.known.borrow().users.len(), 2);
    }
}
