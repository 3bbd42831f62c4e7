//! ringway-runtime on the real kernel, through its public face; peers are plain sockets on threads.
mod executor;
mod harness;
mod receive;
mod send;
mod sockets;
mod traffic;
