//! UDP: datagrams relayed in sessions.
//!
//! One task serves a listener of a worker: it polls the queue of all its sockets, the bound ones and one connected socket
//! for each session. What belongs to which session, and how long one lives, is decided in `ringway_core::session`.

mod listener;
mod loss;
mod open;
mod own;
mod proxied;
mod session;
mod train;

pub use listener::{Fronts, front_key, serve};
pub use own::Own;

/// A bound socket of a listener that no runtime has yet, and its address.
pub(crate) type Bound = (std::os::fd::OwnedFd, std::net::SocketAddr);
