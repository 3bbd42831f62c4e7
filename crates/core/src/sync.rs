//! The atomics on which balancing reserves.
//!
//! Product code takes them from here and from nowhere else, so that `tests/loom.rs` can compile the very same files
//! with the model checker's atomics in their place.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
