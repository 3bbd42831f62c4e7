//! Names as backends: what DNS says about them, kept fresh by TTL.
//!
//! Owns the questions to DNS servers and their timing; tells each name's newest outcome through [`Watch::next`] and
//! never decides what becomes of backends. Never runs on a worker's thread and never blocks the thread that it runs on,
//! except for reading /etc/resolv.conf and /etc/hosts once, in [`watch`]. A server that answers late, wrong or not at
//! all delays nobody who asks elsewhere: every setting has its own servers and its own [`lanes`]. Called by the
//! supervisor.

mod lanes;
mod lookup;
mod mailbox;
mod refresh;
mod servers;

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_trouble;

use crate::model::{Model, PoolIndex, Resolve, Target};
use mailbox::Mailbox;
use refresh::Watched;
use servers::Servers;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Addresses that one name may stand for; of more, the first in order are taken.
pub const ADDRESSES_MAX: usize = 64;

/// What DNS said last for one name of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The pool.
    pub pool: PoolIndex,
    /// Position in [`crate::model::Pool::backends`].
    pub backend: usize,
    /// What DNS said.
    pub outcome: Outcome,
}

/// What DNS said for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At least one; sorted, without duplicates, at most [`ADDRESSES_MAX`].
    Found(Vec<Found>),
    /// NXDOMAIN or no such records: the name has no address now. Words for status and log.
    Empty(String),
    /// SERVFAIL, timeout, garbage: what was known stays. Words for status and log.
    Failed(String),
}

/// One address that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// With the port of the configuration, or of SRV.
    pub address: SocketAddr,
    /// Of SRV, scaled to 1 to 1000 (RFC 2782's weight 0 becomes 1).
    pub weight: Option<u16>,
}

/// Keeps the names of one model resolved; dropping it ends every question.
pub struct Watch {
    /// Aborts its tasks when it is dropped, and with them go the servers and their sockets.
    _tasks: JoinSet<()>,
    mailbox: Arc<Mailbox>,
    /// Pool and backend of each slot of the mailbox.
    places: Vec<(PoolIndex, usize)>,
}

impl Watch {
    /// The next name whose outcome is known for the first time (also when it failed) or has changed; waits for it.
    ///
    /// A name that changes several times before it is read here comes once, as it was last. Nothing is lost when the
    /// future is dropped. Without names in the model it waits forever.
    pub async fn next(&mut self) -> Update {
        let (slot, outcome) = self.mailbox.take().await;
        let (pool, backend) = self.places[slot];
        Update { pool, backend, outcome }
    }

    /// How many names are watched; each of them is told at least once.
    pub fn names(&self) -> usize {
        self.places.len()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("names", &self.places).finish()
    }
}

/// Starts to watch every name of the model, on the current tokio runtime.
///
/// /etc/resolv.conf and /etc/hosts are read here and not again: a changed one counts after a reload. The error is a
/// whole sentence.
pub fn watch(model: &Model) -> Result<Watch, String> {
    Handle::try_current().map_err(|_outside| "names can only be watched from within a tokio runtime".to_owned())?;
    let mut settings: Vec<(Resolve, Arc<Servers>)> = Vec::new();
    let mut watched = Vec::new();
    let mut places = Vec::new();
    for (index, pool) in model.pools.iter().enumerate() {
        for (backend, target) in pool.backends.iter().map(|backend| &backend.target).enumerate() {
            let Target::Name(name) = target else { continue };
            let servers = match settings.iter().find(|(setting, _)| *setting == pool.resolve) {
                Some((_, servers)) => Arc::clone(servers),
                None => {
                    let made =
                        Servers::new(&pool.resolve).map_err(|error| format!("pool \"{}\": {error}", pool.name))?;
                    let made = Arc::new(made);
                    settings.push((pool.resolve.clone(), Arc::clone(&made)));
                    made
                }
            };
            let one = Watched::new(name, &pool.resolve).map_err(|error| format!("pool \"{}\": {error}", pool.name))?;
            watched.push((one, servers));
            places.push((PoolIndex(index), backend));
        }
    }
    let mailbox = Arc::new(Mailbox::new(places.len()));
    let mut tasks = JoinSet::new();
    for (slot, (one, servers)) in watched.into_iter().enumerate() {
        tasks.spawn(one.keep_fresh(servers, Arc::clone(&mailbox), slot));
    }
    Ok(Watch {
        _tasks: tasks,
        mailbox,
        places,
    })
}
