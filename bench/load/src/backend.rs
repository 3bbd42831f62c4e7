//! The backend of every measurement: listeners on free ports of 127.0.0.1, one epoll loop.
//!
//! - `http`: answers each request head with the same small 200, connection kept (for wrk);
//! - `echo`: sends back what it receives, and stops receiving while that is blocked;
//! - `short`: answers the first request and closes, so the ends of short connections wait out TIME_WAIT on listening
//!   ports and nobody runs out of ephemeral ones;
//! - one for each of [`hello::NAMES`]: the same as `short`, but its request is the ClientHello for that name, byte for
//!   byte; whoever sends anything else is closed without an answer;
//! - `long`: answers the ClientHello for the first name, keeps the connection and speaks as `http` does.
//!
//! It must cost little: it shares a core with the load generator, and every microsecond here hides the balancer's.

use crate::hello;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// 64 bytes of body: a request and its response are about one small database round trip.
pub(crate) const HTTP_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n\
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Requests end like an HTTP head does.
const REQUEST_END: &[u8; 4] = b"\r\n\r\n";

/// Bytes of one response on the `short` listener, and to a hello.
pub(crate) const SHORT_BYTES: usize = 64;

const BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;
const KINDS: [Kind; 7] = [
    Kind::Http,
    Kind::Echo,
    Kind::Short,
    Kind::Named(0),
    Kind::Named(1),
    Kind::Named(2),
    Kind::Long,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Echo,
    Short,
    /// Of `hello::NAMES`.
    Named(usize),
    Long,
}

struct Connection {
    stream: TcpStream,
    kind: Kind,
    /// How many bytes of [`REQUEST_END`] the last bytes received match, 0 to 3.
    matched: usize,
    /// Bytes of the hello that have come, 0 to all of them.
    hello: usize,
    /// Not yet accepted by the kernel; empty almost always.
    unsent: Vec<u8>,
}

/// What is left of a connection after an event.
#[derive(PartialEq, Eq)]
enum Fate {
    Open,
    Ended,
}

/// What has come of a hello.
#[derive(PartialEq, Eq)]
enum Greeting {
    Partial,
    Answered,
    /// Other bytes than it has, or more.
    Wrong,
}

/// Serves until the process is killed.
pub(crate) fn run() -> Result<(), String> {
    let mut poll = Poll::new().map_err(|e| format!("epoll: {e}"))?;
    let mut listeners = Vec::new();
    for (index, _) in KINDS.iter().enumerate() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = TcpListener::bind(any).map_err(|e| format!("cannot listen on a free port: {e}"))?;
        poll.registry()
            .register(&mut listener, Token(index), Interest::READABLE)
            .map_err(|e| format!("epoll registration: {e}"))?;
        listeners.push(listener);
    }
    let mut ports = Vec::new();
    for listener in &listeners {
        ports.push(listener.local_addr().map_err(|e| format!("getsockname: {e}"))?.port());
    }
    println!("{}", announcement(&ports));

    let mut connections = Connections::default();
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(|e| format!("epoll wait: {e}"))?,
        }
        for event in &events {
            let Token(token) = event.token();
            match KINDS.get(token) {
                Some(&kind) => accept_all(&listeners[token], kind, &poll, &mut connections)?,
                None => connections.handle(token - KINDS.len(), event, &mut buffer),
            }
        }
    }
}

/// The ports of [`KINDS`] as JSON; those of names in the order of the names.
fn announcement(ports: &[u16]) -> String {
    let (mut fields, mut named) = (Vec::new(), Vec::new());
    for (kind, port) in KINDS.iter().zip(ports) {
        match kind {
            Kind::Http => fields.push(format!(r#""http":{port}"#)),
            Kind::Echo => fields.push(format!(r#""echo":{port}"#)),
            Kind::Short => fields.push(format!(r#""short":{port}"#)),
            Kind::Long => fields.push(format!(r#""long":{port}"#)),
            Kind::Named(name) => named.push(format!(r#"{{"name":"{}","port":{port}}}"#, hello::NAMES[*name])),
        }
    }
    format!(r#"{{{},"named":[{}]}}"#, fields.join(","), named.join(","))
}

fn accept_all(listener: &TcpListener, kind: Kind, poll: &Poll, connections: &mut Connections) -> Result<(), String> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::ConnectionAborted || e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => {
                return Err(format!(
                    "accept: {e}; raise the descriptor limit (ulimit -n) if it is too low"
                ));
            }
        };
        // A peer that is gone already shows up as an event at once.
        let _ = stream.set_nodelay(true);
        let slot = connections.insert(Connection {
            stream,
            kind,
            matched: 0,
            hello: 0,
            unsent: Vec::new(),
        });
        let connection = connections.slots[slot]
            .as_mut()
            .expect("filled by insert, one line above");
        poll.registry()
            .register(
                &mut connection.stream,
                Token(slot + KINDS.len()),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(|e| format!("epoll registration: {e}"))?;
    }
}

/// Open connections by slot; a slot is used again after its connection closed.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Connections {
    fn insert(&mut self, connection: Connection) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(connection);
            return slot;
        }
        self.slots.push(Some(connection));
        self.slots.len() - 1
    }

    fn handle(&mut self, slot: usize, event: &Event, buffer: &mut [u8]) {
        // Empty when an earlier event of this batch closed it.
        let Some(connection) = self.slots[slot].as_mut() else {
            return;
        };
        if connection.progress(event.is_read_closed(), buffer) == Fate::Ended {
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }
}

impl Connection {
    /// Sends what is waiting, then receives until the socket is dry. A receive that does not fill the buffer has
    /// drained the socket (epoll(7)), unless the peer's end of stream stands behind it.
    fn progress(&mut self, read_closed: bool, buffer: &mut [u8]) -> Fate {
        loop {
            if self.flush() == Fate::Ended {
                return Fate::Ended;
            }
            if !self.unsent.is_empty() {
                return Fate::Open;
            }
            let received = match self.stream.read(buffer) {
                Ok(0) => return Fate::Ended,
                Ok(received) => received,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Fate::Open,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Fate::Ended,
            };
            if self.answer(&buffer[..received]) == Fate::Ended {
                return Fate::Ended;
            }
            if received < buffer.len() && !read_closed && self.unsent.is_empty() {
                return Fate::Open;
            }
        }
    }

    fn answer(&mut self, received: &[u8]) -> Fate {
        match self.kind {
            Kind::Echo => self.send(received),
            Kind::Http => {
                for _ in 0..self.count_requests(received) {
                    if self.send(HTTP_RESPONSE) == Fate::Ended {
                        return Fate::Ended;
                    }
                }
                Fate::Open
            }
            Kind::Short => {
                if self.count_requests(received) == 0 {
                    return Fate::Open;
                }
                // 64 bytes always fit an empty send buffer; the close that follows sends the end of stream.
                self.send(&[b'r'; SHORT_BYTES]);
                Fate::Ended
            }
            Kind::Named(name) => {
                if self.greet(hello::for_name(name), received) == Greeting::Partial {
                    return Fate::Open;
                }
                Fate::Ended
            }
            Kind::Long => match self.greet(hello::for_name(0), received) {
                Greeting::Wrong => Fate::Ended,
                Greeting::Partial => Fate::Open,
                Greeting::Answered => {
                    self.kind = Kind::Http;
                    Fate::Open
                }
            },
        }
    }

    /// Takes a piece of the hello and answers when it was the last.
    fn greet(&mut self, expected: &[u8], received: &[u8]) -> Greeting {
        let rest = &expected[self.hello..];
        if !rest.starts_with(received) {
            return Greeting::Wrong;
        }
        self.hello += received.len();
        if received.len() < rest.len() {
            return Greeting::Partial;
        }
        self.send(&[b'r'; SHORT_BYTES]);
        Greeting::Answered
    }

    fn count_requests(&mut self, received: &[u8]) -> usize {
        let mut requests = 0;
        for &byte in received {
            if byte == REQUEST_END[self.matched] {
                self.matched += 1;
            } else {
                self.matched = usize::from(byte == REQUEST_END[0]);
            }
            if self.matched == REQUEST_END.len() {
                self.matched = 0;
                requests += 1;
            }
        }
        requests
    }

    fn send(&mut self, bytes: &[u8]) -> Fate {
        let mut sent = 0;
        while self.unsent.is_empty() && sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Fate::Ended,
            }
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Fate::Open
    }

    fn flush(&mut self) -> Fate {
        if self.unsent.is_empty() {
            return Fate::Open;
        }
        let waiting = std::mem::take(&mut self.unsent);
        self.send(&waiting)
    }
}
