//! Choosing a backend and connecting to it, with tries on others and a line for when all are full.

mod connect;
mod queue;

pub use connect::Connected;
pub(crate) use connect::{connect, source};
