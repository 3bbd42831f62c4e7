//! UDP servers and clients of tests.

use crate::address::{Address, free_v4};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The longest payload over IPv4 (RFC 768, RFC 791).
pub const LONGEST: usize = 65_507;

/// A server that sends each datagram back with its own letter in front; gone when dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
    socket: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// At a free port of 127.0.0.1.
    pub fn start(letter: u8) -> Self {
        Self::start_at(letter, "127.0.0.1")
    }

    /// At a free port of this address.
    pub fn start_at(letter: u8, ip: &str) -> Self {
        Self::start_on(letter, UdpSocket::bind((ip, 0)).expect("a free port"))
    }

    /// With a socket that is bound.
    pub fn start_on(letter: u8, socket: UdpSocket) -> Self {
        Self::serve(letter, socket, |_| true)
    }

    /// At a free port of 127.0.0.1, answering only what it likes.
    pub fn start_choosy(letter: u8, likes: impl Fn(&[u8]) -> bool + Send + 'static) -> Self {
        Self::serve(letter, UdpSocket::bind("127.0.0.1:0").expect("a free port"), likes)
    }

    /// At a free port of 127.0.0.1, answering after this time.
    pub fn start_slow(letter: u8, delay: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Self::serve(letter, socket, move |_| {
            // This is the slowness that is tested.
            thread::sleep(delay);
            true
        })
    }

    fn serve(letter: u8, socket: UdpSocket, likes: impl Fn(&[u8]) -> bool + Send + 'static) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("SO_RCVTIMEO");
        let address = socket.local_addr().expect("bound");
        let (served, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, stopped) = (served.clone(), stop.clone());
        let mute = Arc::new(AtomicBool::new(false));
        let muted = mute.clone();
        let aside = socket.try_clone().expect("dup");
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !stopped.load(Ordering::Acquire) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                counts.fetch_add(1, Ordering::AcqRel);
                if muted.load(Ordering::Acquire) || !likes(&buffer[..len]) {
                    continue;
                }
                let mut answer = vec![letter];
                answer.extend_from_slice(&buffer[..len.min(LONGEST - 1)]);
                // The client may be gone.
                let _ = socket.send_to(&answer, from);
            }
        });
        Self {
            address,
            served,
            stop,
            mute,
            socket: aside,
            thread: Some(thread),
        }
    }

    /// Where it listens, as a configuration names it.
    pub fn as_address(&self) -> Address {
        Address::Inet(self.address)
    }

    /// Datagrams so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Acquire)
    }

    /// Sends a datagram that nobody asked for.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) {
        self.socket.send_to(datagram, to).expect("send");
    }

    /// Takes datagrams and answers none from now on.
    pub fn fall_silent(&self) {
        self.mute.store(true, Ordering::Release);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

/// A port of 127.0.0.1 that is free for UDP and for TCP, and that the kernel gives to nobody: some servers bind both.
pub fn free_udp() -> Address {
    let is_free = |address: &Address| UdpSocket::bind(inet(address)).is_ok();
    let mut drawn = std::iter::repeat_with(free_v4);
    drawn.find(is_free).expect("there is always another one")
}

/// As a socket address.
///
/// # Panics
/// For a UNIX path.
pub fn inet(address: &Address) -> SocketAddr {
    match address {
        Address::Inet(address) => *address,
        Address::Unix(_) => unreachable!("an inet address"),
    }
}

/// A client with a port of its own, which waits for an answer for at most `patience`.
pub fn client(front: SocketAddr, patience: Duration) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(patience)).expect("SO_RCVTIMEO");
    socket.connect(front).expect("connect");
    socket
}

/// Sends a question, and waits for an answer.
///
/// # Errors
/// None came in time, or nobody listens.
pub fn ask(client: &UdpSocket, question: &[u8]) -> io::Result<Vec<u8>> {
    client.send(question)?;
    let mut buffer = vec![0; 70_000];
    let len = client.recv(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}
