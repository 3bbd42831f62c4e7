//! Choosing a backend and connecting to it, with tries on others and a line for when all are full.

mod connect;
mod greet;
mod queue;
mod source;

pub use connect::Connected;
pub(crate) use connect::{Greeting, Seeker, connect, connect_to};
pub(crate) use source::{source, tell_passed_over};
