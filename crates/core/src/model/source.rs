//! Where connections to backends come from.

use std::net::IpAddr;

/// The addresses that backends see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The one of this machine that the kernel chooses for the way to the backend.
    #[default]
    Kernel,
    /// These of this machine, those of the backend's family in turn; at least one, none twice.
    Addresses(Vec<IpAddr>),
    /// The client's own (transparent). A client without an address, or with one of another family than the backend's,
    /// cannot be taken to it.
    Client,
}
