//! The PROXY protocol: reader and writer against the specification, each other, other implementations and chance.

mod differential;
mod forge;
#[path = "shared/headers.rs"]
#[allow(
    dead_code,
    reason = "what other programs make of a header is for the end-to-end test"
)]
mod headers;
mod hostile;
mod reading;
#[path = "../seeded/mod.rs"]
mod seeded;
mod table;
mod writing;
