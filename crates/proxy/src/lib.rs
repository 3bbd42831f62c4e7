//! The data plane.

pub mod worker;
