//! Ringway's decisions, as pure functions of values, time and seed.
//!
//! This crate never contains sockets, a clock, thread randomness, serde or logging; `ringway-proxy` and
//! `ringway-control` act on what is decided here.

pub mod access;
pub mod backend;
pub mod balance;
pub mod cancel;
pub mod gate;
pub mod health;
pub mod limits;
pub mod model;
pub mod queue;
pub mod reason;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod spare;
pub mod stats;
pub(crate) mod sync;
pub mod unrouted;

// All unit tests stand here and not inside the modules: tests/loom.rs compiles the modules a second time, with the
// model checker's atomics, on which ordinary tests cannot run.
#[cfg(test)]
mod tests;
