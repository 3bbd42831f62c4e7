//! The atomics and locks on which workers agree.
//!
//! Product code takes them from here and from nowhere else, so that `tests/loom.rs` can compile the very same files
//! with the model checker's in their place.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};
