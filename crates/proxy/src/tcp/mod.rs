//! TCP (and UNIX stream) listeners: from accept to close.

pub mod accept;
mod books;
mod close;
mod direction;
mod near;
mod opening;
mod queue;
pub mod relay;
mod serve;
