//! Choosing a backend and connecting to it, with tries on others. Public to every service that needs a backend.

mod connect;

pub use connect::{Connected, connect};
