//! Ringway's decisions, as pure functions of values, time and seed.
//!
//! This crate never contains sockets, a clock, thread randomness, serde or logging; `ringway-proxy` and
//! `ringway-control` act on what is decided here.

pub mod backend;
pub mod model;
pub mod reason;
pub mod stats;
