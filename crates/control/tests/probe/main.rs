//! Probes against real sockets: every kind, passing and failing, and every way a backend can be of no use.

mod exchange;
mod http;
mod peers;
mod tcp;
mod tls;
