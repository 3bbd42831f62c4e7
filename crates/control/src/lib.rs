//! The control plane: everything around the packet path, in the main thread.
//!
//! Owns the process: limits, ports, workers, signals, the admin port, metrics and logs. Never does per-packet work and
//! never touches a relay. Called by the binary.

pub mod admin;
pub mod cores;
pub mod drain;
pub mod logs;
pub mod metrics;
pub mod readiness;
pub mod supervisor;

pub use ringway_core::model;
