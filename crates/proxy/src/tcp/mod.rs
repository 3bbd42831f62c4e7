//! TCP (and UNIX stream) listeners: from accept to close.

pub mod accept;
mod close;
mod queue;
pub mod relay;
mod serve;
