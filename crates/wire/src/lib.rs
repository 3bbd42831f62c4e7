//! Bytes and their meaning: what clients and other balancers say before a connection is relayed.
//!
//! Readers are pure functions of the bytes received so far; they never allocate more than their caller has given them,
//! never panic, and give every input a definite answer: more is needed, this is what it says, or this is wrong with it.
//! Absent here: sockets, clocks, the words of the configuration.

pub mod hello;
pub mod postgres;
pub mod proxy;
