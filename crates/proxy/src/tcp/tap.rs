//! Listening for the key that a PostgreSQL server issues, while its first bytes are relayed.
//!
//! Takes nothing out and keeps nothing but the key. Over with the first ReadyForQuery; from then on it only remembers
//! whose key it was.

use super::postgres::request_of;
use crate::session::Session;
use crate::state::Keys;
use ringway_core::backend::BackendState;
use ringway_core::cancel::KnownKey;
use ringway_runtime::Leases;
use ringway_runtime::faults::{Fault, active};
use ringway_wire::postgres::{KeyWatch, Watched};
use std::hash::RandomState;
use std::sync::Arc;

/// What is listened for in one connection.
#[derive(Debug)]
pub(super) enum Tap {
    /// No key has come yet.
    Listening {
        watch: KeyWatch,
        keys: Arc<Keys>,
        backend: Arc<BackendState>,
        /// The session, unique in the process.
        number: u64,
    },
    /// The key, forgotten with the connection.
    Known(#[expect(dead_code, reason = "kept to be dropped")] KnownKey<RandomState>),
    /// There is none.
    Over,
}

impl Tap {
    /// For a connection to this backend; `None` where nobody cancels.
    pub(super) fn new(session: &Session, backend: &Arc<BackendState>) -> Option<Box<Self>> {
        let worker = session.worker();
        let keys = worker.cancel_keys(session.listener())?.clone();
        Some(Box::new(Self::Listening {
            watch: KeyWatch::new(),
            keys,
            backend: backend.clone(),
            number: worker.next_number(),
        }))
    }

    /// These bytes have come from the server.
    pub(super) fn hear(&mut self, leases: &Leases) {
        for slice in leases.slices() {
            let Self::Listening {
                watch,
                keys,
                backend,
                number,
            } = self
            else {
                return;
            };
            match watch.feed(slice) {
                Watched::More if active(Fault::CutKeyMissed) => *watch = KeyWatch::new(),
                Watched::More => {}
                Watched::Key(key) => {
                    let known = keys.learn(&request_of(&key), backend, *number);
                    if active(Fault::KeyNotForgotten) {
                        std::mem::forget(known);
                        *self = Self::Over;
                    } else {
                        *self = Self::Known(known);
                    }
                }
                Watched::Over => *self = Self::Over,
            }
        }
    }

    /// Whether there is nothing to remember.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }
}
