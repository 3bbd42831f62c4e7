//! TCP (and UNIX stream) listeners: from accept to close.

pub mod accept;
mod books;
mod cancel;
mod close;
mod direction;
mod head;
mod header;
mod hello;
mod near;
mod opening;
mod peek;
mod postgres;
mod queue;
pub mod relay;
mod routing;
mod serve;
mod tap;

pub(crate) use head::Head;
