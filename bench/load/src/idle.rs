//! Holds idle connections while the driver reads memory.
//!
//! Prints `established N` once each of them has echoed a message; then obeys lines on stdin: `check` echoes on all of
//! them again and prints `alive N`; `close`, or the end of stdin, closes them and ends the process.

use crate::exchange;
use mio::Poll;
use std::net::SocketAddr;

pub(crate) fn run(target: SocketAddr, connections: usize) -> Result<(), String> {
    let mut poll = Poll::new().map_err(|e| format!("epoll: {e}"))?;
    let mut held = exchange::open(&mut poll, target, connections)?;
    println!("established {}", held.iter().flatten().count());
    for line in std::io::stdin().lines() {
        match line.map_err(|e| format!("stdin: {e}"))?.trim() {
            "check" => println!("alive {}", exchange::check(&mut poll, &mut held)?),
            "close" => break,
            other => return Err(format!("{other:?} is not `check` or `close`")),
        }
    }
    Ok(())
}
