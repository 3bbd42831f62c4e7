//! Clients that ask, read the answer, think, and ask again over a new connection.
//!
//! Each comes from an address of its own in 127.0.0.0/8, so that `ip_hash` has something to tell apart. Called by `demo`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Clients of each listener.
pub const LOAD_CLIENTS: u8 = 16;
/// From an answer to the next request; with 48 clients in all at most 480 requests per second.
const THINK: Duration = Duration::from_millis(100);
/// For connecting, asking and reading.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Of one answer; the backends send less.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// What the clients saw.
#[derive(Debug, Default)]
pub struct LoadCounts {
    /// Answered with 200.
    pub answered: AtomicU64,
    /// Refused, reset, or not answered in time.
    pub failed: AtomicU64,
}

/// Runs all clients for ever.
pub(super) async fn run(listeners: Vec<SocketAddr>, counts: Arc<LoadCounts>) {
    let mut clients = Vec::new();
    for (listener, number) in listeners.iter().flat_map(|&l| (0..LOAD_CLIENTS).map(move |n| (l, n))) {
        clients.push(tokio::spawn(client(listener, number, counts.clone())));
    }
    for client in clients {
        // They never end.
        let _ = client.await;
    }
}

async fn client(listener: SocketAddr, number: u8, counts: Arc<LoadCounts>) {
    // Not all at the same moment.
    sleep(THINK * u32::from(number) / u32::from(LOAD_CLIENTS)).await;
    loop {
        let well = timeout(ANSWER_TIME_MAX, ask(listener, number)).await;
        let counter = if matches!(well, Ok(Ok(true))) {
            &counts.answered
        } else {
            &counts.failed
        };
        counter.fetch_add(1, Relaxed);
        sleep(THINK).await;
    }
}

/// `true` if the answer is a 200.
async fn ask(listener: SocketAddr, number: u8) -> std::io::Result<bool> {
    let socket = TcpSocket::new_v4()?;
    // 127.0.0.10 and on: 127.0.0.1 is whoever tries the demo by hand.
    socket.bind((Ipv4Addr::new(127, 0, 0, 10 + number), 0).into())?;
    let stream = socket.connect(listener).await?;
    send(&stream, b"GET / HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n").await?;
    Ok(answer(&stream).await?.starts_with(b"HTTP/1.1 200 "))
}

async fn send(stream: &TcpStream, mut request: &[u8]) -> std::io::Result<()> {
    while !request.is_empty() {
        stream.ready(Interest::WRITABLE).await?;
        match stream.try_write(request) {
            Ok(sent) => request = &request[sent..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn answer(stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 512];
    while answer.len() < ANSWER_BYTES_MAX {
        stream.readable().await?;
        match stream.try_read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}
