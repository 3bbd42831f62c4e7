//! Pushes bytes through an echo and compares them, so that a balancer has touched all its buffers before its memory
//! is read, and a broken relay is noticed before it is measured. Prints `warm BYTES`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

const CHUNK_BYTES: usize = 64 * 1024;

pub(crate) fn run(target: SocketAddr, connections: usize, megabytes: usize) -> Result<(), String> {
    let chunks = megabytes * (1 << 20) / CHUNK_BYTES;
    let threads: Vec<_> = (0..connections)
        .map(|n| thread::spawn(move || echo(target, n, chunks)))
        .collect();
    let mut bytes = 0;
    for running in threads {
        bytes += running
            .join()
            .map_err(|_| "a connection's thread panicked".to_owned())??;
    }
    println!("warm {bytes}");
    Ok(())
}

/// Sends `chunks` chunks whose bytes depend on the connection and the position, and expects the same back.
fn echo(target: SocketAddr, connection: usize, chunks: usize) -> Result<usize, String> {
    let say = |what: &str, e: std::io::Error| format!("connection {connection} to {target}: {what}: {e}");
    let mut stream = TcpStream::connect(target).map_err(|e| say("connect", e))?;
    let mut sending = stream.try_clone().map_err(|e| say("dup", e))?;
    let sender = thread::spawn(move || {
        for chunk in 0..chunks {
            sending.write_all(&pattern(connection, chunk))?;
        }
        // No half-close: by default nginx answers it by closing both directions, with bytes still on their way.
        Ok::<(), std::io::Error>(())
    });
    let mut received = vec![0; CHUNK_BYTES];
    for chunk in 0..chunks {
        stream.read_exact(&mut received).map_err(|e| say("receive", e))?;
        if received != pattern(connection, chunk) {
            return Err(format!(
                "connection {connection} to {target}: wrong bytes in chunk {chunk}"
            ));
        }
    }
    let sent = sender
        .join()
        .map_err(|_| format!("connection {connection}: the sender panicked"))?;
    sent.map_err(|e| say("send", e))?;
    Ok(chunks * CHUNK_BYTES)
}

/// Differs between chunks and connections: 251 is prime, so the pattern never lines up with buffers.
fn pattern(connection: usize, chunk: usize) -> Vec<u8> {
    let start = connection * 97 + chunk * CHUNK_BYTES;
    (0..CHUNK_BYTES).map(|i| ((start + i) % 251) as u8).collect()
}
