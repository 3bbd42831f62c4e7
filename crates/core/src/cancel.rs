//! Who issued which key: PostgreSQL clients cancel a query over a second connection, with a key that only the server of
//! the first one knows.
//!
//! Shared by all workers: the second connection may come to another one. A key is forgotten with the session it was
//! issued to. Knows no bytes of the protocol; a key is what the server called it.

use crate::backend::BackendState;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError};

/// Parts of the table, so that workers seldom meet. A power of two.
const SHARDS: usize = 16;

/// The keys of the sessions of one listener.
#[derive(Debug)]
pub struct CancelKeys<S> {
    hasher: S,
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<Arc<[u8]>, (u64, Arc<BackendState>)>;

/// A key that is known; forgotten when dropped.
#[derive(Debug)]
pub struct KnownKey<S: BuildHasher> {
    keys: Arc<CancelKeys<S>>,
    key: Arc<[u8]>,
    /// Tells it from a later session's with the same key.
    number: u64,
}

impl<S: BuildHasher> CancelKeys<S> {
    /// None yet. `hasher` should be keyed: servers choose the keys.
    pub fn new(hasher: S) -> Self {
        Self {
            hasher,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// A backend issued this key. Of two backends with the same key the later one counts: servers draw keys at random,
    /// and there is nothing to tell them apart by. `number` is unique among the sessions.
    pub fn learn(self: &Arc<Self>, key: &[u8], backend: &Arc<BackendState>, number: u64) -> KnownKey<S> {
        let key: Arc<[u8]> = key.into();
        let mut known = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key.clone(), (number, backend.clone()));
        drop(known);
        KnownKey {
            keys: self.clone(),
            key,
            number,
        }
    }

    /// Who issued this key.
    pub fn issuer(&self, key: &[u8]) -> Option<Arc<BackendState>> {
        let known = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).map(|(_, backend)| backend.clone())
    }

    /// Keys that are known.
    pub fn len(&self) -> usize {
        let known = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(known).sum()
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S: BuildHasher> Drop for KnownKey<S> {
    fn drop(&mut self) {
        let mut known = self
            .keys
            .shard(&self.key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.get(&self.key).is_some_and(|&(number, _)| number == self.number) {
            known.remove(&self.key);
        }
    }
}
