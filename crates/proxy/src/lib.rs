//! The data plane: accepts connections, chooses a backend for each, and relays bytes.
//!
//! Follow one connection: `worker` starts the thread, [`tcp::accept`] takes the connection, `tcp::serve` is its life,
//! [`upstream`] chooses and connects, [`tcp::relay`] moves the bytes, `tcp::close` ends it. Never knows YAML, files or
//! HTTP, and never sees a raw descriptor. `control` starts workers and reads their counters.

pub mod convert;
pub mod observer;
mod session;
pub mod state;
pub mod tcp;
pub mod udp;
pub mod upstream;
pub mod worker;

#[cfg(feature = "faults")]
mod injected;
