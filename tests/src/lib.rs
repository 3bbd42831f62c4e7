//! The harness of the end-to-end tests: it starts the shipped binary `ringway` and looks at it only from outside.
//!
//! Owns: the process under test, test backends and clients, real programs, network namespaces, the seed of a run.
//! Must never: link a crate of the product, or expect a value that it computed with the product's own code.
//! Called by: the files in `tests/tests`, one process each; tests of one file take turns (see [`scope`]).
//!
//! Environment: `RINGWAY_BIN` (the binary to test instead of a fresh release build), `RINGWAY_PROMISES=full` (full
//! figures), `RINGWAY_TEST_SEED` (replays the random choices of a run), `RINGWAY_FAULTS_BIN` (a binary with the cargo
//! feature `faults` instead of a build).

pub mod address;
pub mod backend;
pub mod backend_process;
pub mod binary;
pub mod client;
pub mod databases;
pub mod dns;
pub mod exchange;
pub mod health;
pub mod hello;
pub mod metrics;
pub mod namespace;
pub mod pages;
pub mod process;
pub mod program;
pub mod promise;
pub mod proxy_header;
pub mod ringway;
pub mod scope;
pub mod seeded;
pub mod server;
pub mod setup;
pub mod steady;
pub mod tls;
pub mod udp;
pub mod wire;
