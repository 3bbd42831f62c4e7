//! The data plane: accepts connections, chooses a backend for each, and relays bytes.
//!
//! Follow one connection: `worker` starts the thread, [`tcp::accept`] takes the connection, [`access`] says whether its
//! client may have it, `tcp::serve` is its life, `tcp::routing` finds out where it goes, [`upstream`] chooses and connects,
//! [`tcp::relay`] moves the bytes, `tcp::close` ends it. Never knows YAML, files or
//! HTTP, and never sees a raw descriptor. `control` starts workers and reads their counters.

pub mod access;
pub mod convert;
pub mod observer;
mod session;
pub mod state;
pub mod tcp;
pub mod udp;
pub mod unrouted;
pub mod upstream;
pub mod worker;

#[cfg(feature = "faults")]
mod injected;
