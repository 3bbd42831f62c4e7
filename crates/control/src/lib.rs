//! The control plane: everything around the packet path, in the main thread.
//!
//! Owns the process: limits, ports, workers, signals, the admin port, metrics and logs. Never does per-packet work and
//! never touches a relay. Called by the binary.

pub mod admin;
pub mod cores;
pub mod demo;
pub mod drain;
pub mod health;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod probe;
pub mod readiness;
pub mod resolve;
pub mod session_log;
pub mod status;
pub mod supervisor;
mod transparent;

pub use ringway_core::model;
