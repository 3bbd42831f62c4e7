//! UDP sessions: whose datagram it is, how long a session lives, and who may open one.
//!
//! A [`Table`] belongs to one listener of one worker: the kernel sends a client's datagrams to the same worker for as
//! long as there are as many workers, so nothing of it is shared. What must hold over all workers are the bounds on one
//! client address, [`Clients`], and the listener's own cap, a `gate::Permit`, which the owner keeps in its session.
//!
//! Nothing here knows sockets or backends: `ringway-proxy` keeps what it needs for a session in the table and acts on
//! what is decided. All work is bounded by what has happened: no call looks at every session.

mod clients;
mod names;
pub mod policy;
pub mod spread;
mod table;
mod wheel;

pub use clients::{Client, ClientGuard, ClientLimits, Clients, Exceeded, TooMany};
pub use names::{Name, Names};
pub use table::{Closed, Entry, Id, Key, Rules, Table};
