//! Health at work: probes backends, hears what workers met, follows names, and publishes who can be chosen.
//!
//! The judgement is `ringway_core::health`; here it meets time, sockets and logs. `keeper` is the one that decides when
//! and publishes, `pool` keeps one pool, `schedule` starts probes, `board` shows what is known, `observer` is how workers
//! are heard. Runs on the main thread's runtime.

mod board;
mod keeper;
mod observer;
mod pool;
mod schedule;

pub use board::{BackendBoard, Board, LastProbe, NameBoard, PoolBoard, ProbeCounts};
pub use keeper::{EVENTS_MAX, Event, Keeper, Means};
pub use observer::Ear;

#[cfg(test)]
mod tests;
