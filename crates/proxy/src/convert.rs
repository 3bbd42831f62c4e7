//! The model's values in the runtime's words.

use ringway_core::model;
use ringway_runtime::{Address, Keepalive, SocketOptions};

/// An address.
pub fn address(address: &model::Address) -> Address {
    match address {
        model::Address::Inet(address) => Address::Inet(*address),
        model::Address::Unix(path) => Address::Unix(path.clone()),
    }
}

/// The reverse.
pub fn model_address(address: Address) -> model::Address {
    match address {
        Address::Inet(address) => model::Address::Inet(address),
        Address::Unix(path) => model::Address::Unix(path),
    }
}

/// Options of a connection.
pub const fn connection(keepalive: &model::Keepalive) -> SocketOptions {
    let model::Keepalive { idle, interval, count } = *keepalive;
    SocketOptions {
        no_delay: true,
        keepalive: Some(Keepalive { idle, interval, count }),
    }
}
