//! What `ringway demo` puts behind and in front of the balancer: three small HTTP backends, and clients.
//!
//! Owns one thread with sockets on loopback. Never part of serving. Called by the command `demo`.

mod backends;
mod load;

pub use backends::{Backends, CHARACTERS, Character, Sick};
pub use load::{LOAD_CLIENTS, LoadCounts};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::{io, thread};

/// Runs the load against these listeners, from a thread of its own that ends with the process.
pub fn start_load(listeners: Vec<SocketAddr>) -> io::Result<Arc<LoadCounts>> {
    let counts = Arc::new(LoadCounts::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = counts.clone();
    thread::Builder::new()
        .name("demo-load".to_owned())
        .spawn(move || runtime.block_on(load::run(listeners, shared)))?;
    Ok(counts)
}

/// Whichever of the two is over first; the other one is dropped.
enum Either<A, B> {
    First(A),
    Second(B),
}

async fn either<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> Either<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(value) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}

#[cfg(test)]
mod tests;
