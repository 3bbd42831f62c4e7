//! Backends with a known behaviour, each on a thread of its own (in a network namespace if asked).

use crate::address::{ANY_V4, Address};
use crate::exchange::Plan;
use crate::namespace::Namespace;
use crate::wire::{End, Wire};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

/// What a backend does with a connection.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Sends back what it receives; ends when the client ends.
    Echo,
    /// Carries out the [`Plan`] that the client opens with.
    Exchange,
    /// Speaks first: sends this line, then waits for the client's end.
    Name(String),
    /// Holds the connection and never reads nor writes.
    Silent,
    /// Closes in order without a byte.
    CloseAtOnce,
    /// Resets without a byte.
    ResetAtOnce,
    /// Sends back one byte; resets on the next.
    ResetAfterOneByte,
    /// Answers every HTTP request with this body.
    Http(String),
    /// Reads a number of eight bytes (little endian), waits for so long, sends as many bytes; again and again.
    Download(Duration),
    /// Echoes until something begins with [`HOLD`]; from then on it reads nothing, so that what comes stays unread.
    EchoOrHold,
    /// Answers every HTTP request as it is told at that moment.
    Health(Arc<Health>),
}

/// What makes [`Behaviour::EchoOrHold`] stop reading.
pub const HOLD: u8 = 0;

/// What an answer to a health check is; may be changed at any time.
#[derive(Debug)]
pub struct Health {
    /// The status code.
    pub status: AtomicU16,
    /// How long it takes.
    pub delay: Duration,
}

impl Health {
    /// Answers with 200 after so long.
    pub fn well_after(delay: Duration) -> Arc<Self> {
        Arc::new(Self {
            status: AtomicU16::new(200),
            delay,
        })
    }

    /// Answers with this code from now on.
    pub fn set(&self, status: u16) {
        self.status.store(status, SeqCst);
    }
}

/// How many connections a backend saw, and how they ended.
#[derive(Debug, Default)]
pub struct Counts {
    /// Accepted.
    pub accepted: AtomicU64,
    /// Open now.
    pub open: AtomicU64,
    /// Bytes sent by [`Behaviour::Download`].
    pub sent: AtomicU64,
    /// Ended by the client's orderly end.
    pub orderly: AtomicU64,
    /// Ended by a reset that this backend's kernel received.
    pub resets: AtomicU64,
    /// Ended by any other error; for [`Behaviour::Exchange`]: bytes that were not as planned.
    pub errors: AtomicU64,
}

/// How a backend listens.
#[derive(Debug, Default)]
pub struct Place<'a> {
    /// `None`: 127.0.0.1 and a port of the kernel's choice.
    pub address: Option<Address>,
    /// Where to live.
    pub namespace: Option<&'a Namespace>,
    /// SO_SNDBUF and SO_RCVBUF of its connections, bytes.
    pub socket_buffers: Option<usize>,
}

/// A running backend; ends when dropped.
pub struct Backend {
    /// Where it listens.
    pub address: Address,
    /// What it saw.
    pub counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// A backend on 127.0.0.1.
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_at(behaviour, &Place::default())
    }

    /// A backend on this address.
    pub fn start_on(behaviour: Behaviour, address: Address) -> Self {
        Self::start_at(
            behaviour,
            &Place {
                address: Some(address),
                ..Place::default()
            },
        )
    }

    /// A backend as described.
    pub fn start_at(behaviour: Behaviour, place: &Place<'_>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let counts = Arc::new(Counts::default());
        let wanted = place.address.clone().unwrap_or(ANY_V4);
        let (buffers, seen) = (place.socket_buffers, counts.clone());
        let namespace = place.namespace.map(Namespace::door);
        let thread = std::thread::spawn(move || {
            if let Some(door) = namespace {
                door.enter();
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let (listener, address) = Listener::bind(&wanted, buffers).expect("the backend's address is free");
                tell.send(address).expect("the starter waits");
                tokio::select! {
                    _ = stopped => {}
                    () = listener.serve(behaviour, seen) => {}
                }
            });
        });
        let address = told.recv().expect("the backend starts");
        Self {
            address,
            counts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.counts.open.load(SeqCst)
    }

    /// Bytes sent by [`Behaviour::Download`].
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(SeqCst)
    }

    /// Resets that reached this backend.
    pub fn resets(&self) -> u64 {
        self.counts.resets.load(SeqCst)
    }

    /// Connections that ended in another way than they should.
    pub fn errors(&self) -> u64 {
        self.counts.errors.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the backend's thread has been printed; a second one while dropping would abort.
            let _ = thread.join();
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(address: &Address, buffers: Option<usize>) -> io::Result<(Self, Address)> {
        let wanted = match address {
            Address::Unix(path) => return Ok((Self::Unix(UnixListener::bind(path)?), address.clone())),
            Address::Inet(wanted) => *wanted,
        };
        let listener = listen(wanted, 4096, buffers)?;
        let bound = Address::Inet(listener.local_addr()?);
        Ok((Self::Tcp(TcpListener::from_std(listener)?), bound))
    }

    async fn accept(&self) -> io::Result<Wire> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Wire::Tcp(stream))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Wire::Unix(stream)),
        }
    }

    async fn serve(&self, behaviour: Behaviour, counts: Arc<Counts>) {
        loop {
            let Ok(wire) = self.accept().await else { continue };
            counts.accepted.fetch_add(1, SeqCst);
            counts.open.fetch_add(1, SeqCst);
            let (behaviour, counts) = (behaviour.clone(), counts.clone());
            tokio::spawn(async move {
                match behaviour.serve(wire, &counts).await {
                    End::Orderly => counts.orderly.fetch_add(1, SeqCst),
                    End::Reset => counts.resets.fetch_add(1, SeqCst),
                    End::Error(_) | End::StillOpen => counts.errors.fetch_add(1, SeqCst),
                };
                counts.open.fetch_sub(1, SeqCst);
            });
        }
    }
}

/// A non-blocking listening socket with this backlog and these buffers.
pub fn listen(address: SocketAddr, backlog: i32, buffers: Option<usize>) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // So that a backend can come back while connections of the one before it are in TIME_WAIT.
    // One that was killed leaves connections of its port behind; its successor binds all the same.
    socket.set_reuse_address(true)?;
    if let Some(bytes) = buffers {
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A listening socket whose queue is full: the kernel answers no further SYN.
#[derive(Debug)]
pub struct FullQueue {
    /// Where it listens.
    pub address: Address,
    _listener: std::net::TcpListener,
    _queue: Vec<std::net::TcpStream>,
}

impl FullQueue {
    /// One on 127.0.0.1.
    pub fn new() -> Self {
        let Address::Inet(any) = ANY_V4 else {
            unreachable!("it is an IPv4 address")
        };
        let listener = listen(any, 0, None).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(10).collect();
        assert!(queue.len() < 10, "a queue of length 0 is full after a few");
        Self {
            address: Address::Inet(address),
            _listener: listener,
            _queue: queue,
        }
    }
}

impl Default for FullQueue {
    fn default() -> Self {
        Self::new()
    }
}

const FOREVER: Duration = Duration::from_secs(3600);

impl Behaviour {
    async fn serve(self, mut wire: Wire, counts: &Counts) -> End {
        let outcome = match self {
            Self::Echo => echo(&mut wire, None).await,
            Self::EchoOrHold => echo(&mut wire, Some(HOLD)).await,
            Self::Exchange => Plan::run_backend(wire).await,
            Self::Download(delay) => download(&mut wire, delay, &counts.sent).await,
            Self::Http(body) => http(&mut wire, &body, || (200, Duration::ZERO)).await,
            Self::Health(health) => {
                let told = || (health.status.load(SeqCst), health.delay);
                http(&mut wire, "", told).await
            }
            Self::Name(name) => match wire.write_all(format!("{name}\n").as_bytes()).await {
                Ok(()) => return wire.read_to_end_of(FOREVER).await.1,
                Err(error) => Err(error),
            },
            Self::Silent => {
                tokio::time::sleep(FOREVER).await;
                Ok(())
            }
            Self::CloseAtOnce => Ok(()),
            Self::ResetAtOnce => {
                wire.reset();
                return End::Orderly;
            }
            Self::ResetAfterOneByte => return reset_after_one_byte(wire).await,
        };
        match outcome {
            Ok(()) => End::Orderly,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(error) => End::Error(error.kind()),
        }
    }
}

async fn echo(wire: &mut Wire, hold: Option<u8>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = wire.read(&mut buffer).await?;
        if n == 0 {
            return wire.shutdown().await;
        }
        if hold == Some(buffer[0]) {
            tokio::time::sleep(FOREVER).await;
        }
        wire.write_all(&buffer[..n]).await?;
    }
}

async fn download(wire: &mut Wire, delay: Duration, sent: &AtomicU64) -> io::Result<()> {
    let zeroes = [0; 16 * 1024];
    loop {
        let mut left = match wire.read_u64_le().await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return wire.shutdown().await,
            Err(error) => return Err(error),
        };
        tokio::time::sleep(delay).await;
        while left > 0 {
            let piece = left.min(zeroes.len() as u64);
            wire.write_all(&zeroes[..piece as usize]).await?;
            sent.fetch_add(piece, SeqCst);
            left -= piece;
        }
    }
}

async fn reset_after_one_byte(mut wire: Wire) -> End {
    let greeted = async {
        let byte = wire.read_u8().await?;
        wire.write_u8(byte).await?;
        wire.read_u8().await
    };
    match greeted.await {
        Ok(_) => {
            wire.reset();
            End::Orderly
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
        Err(error) => End::Error(error.kind()),
    }
}

async fn http(wire: &mut Wire, body: &str, told: impl Fn() -> (u16, Duration)) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let n = wire.read(&mut buffer).await?;
        if n == 0 {
            return wire.shutdown().await;
        }
        head.extend_from_slice(&buffer[..n]);
        while let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            head.drain(..at + 4);
            let (status, delay) = told();
            tokio::time::sleep(delay).await;
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} Told\r\nContent-Length: {length}\r\n\r\n{body}");
            wire.write_all(answer.as_bytes()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::run;
    use crate::exchange::{Order, run_many};
    use crate::wire::Dial;

    const SOON: Duration = Duration::from_secs(5);

    /// Ends that backends and clients make arrive as what they are when nothing is between them.
    #[test]
    fn ends_are_told_apart() {
        let (echo, resetting) = (
            Backend::start(Behaviour::Echo),
            Backend::start(Behaviour::ResetAfterOneByte),
        );
        run(None, async {
            let mut wire = Dial::to(&resetting.address).connect().await.expect("it listens");
            wire.ping(b"a", SOON).await.expect("one byte is echoed");
            wire.write_all(b"b").await.expect("it still listens");
            assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Reset));
            let mut wire = Dial::to(&echo.address).connect().await.expect("it listens");
            wire.ping(b"a", SOON).await.expect("it echoes");
            wire.reset();
            let mut wire = Dial::to(&echo.address).connect().await.expect("it listens");
            wire.shutdown().await.expect("a client may end");
            assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Orderly));
        });
        let all = || echo.counts.orderly.load(SeqCst) == 1 && echo.resets() == 1;
        assert!(
            crate::process::wait_for(SOON, || all().then_some(())).is_some(),
            "{:?}",
            echo.counts
        );
    }

    /// Streams that are cut, lengthened or changed are found at either end.
    #[test]
    fn an_exchange_finds_what_is_wrong() {
        let backend = Backend::start(Behaviour::Exchange);
        let plan = Plan {
            stream: 5,
            up: 70_000,
            down: 90_000,
            order: Order::Together,
            pauses: true,
        };
        assert_eq!(
            run_many(None, &Dial::to(&backend.address), 8, plan),
            Vec::<String>::new()
        );
        let client = |told: Plan, done: Plan| {
            let dial = Dial::to(&backend.address);
            run(None, async move {
                let mut wire = dial.connect().await.expect("it listens");
                told.open(&mut wire).await.expect("it listens");
                done.carry_out(wire).await.map_err(|error| error.kind())
            })
        };
        assert_eq!(
            client(plan, Plan { stream: 6, ..plan }),
            Err(ErrorKind::InvalidData),
            "other bytes"
        );
        assert_eq!(
            client(plan, Plan { down: 90_001, ..plan }),
            Err(ErrorKind::UnexpectedEof),
            "too few"
        );
        assert_eq!(
            client(plan, Plan { down: 89_999, ..plan }),
            Err(ErrorKind::InvalidData),
            "too many"
        );
        // What is wrong in the client's own direction only the backend sees: with a backend that nothing else went to.
        let backend = Backend::start(Behaviour::Exchange);
        for up in [69_999, 70_001] {
            let dial = Dial::to(&backend.address);
            run(None, async move {
                let mut wire = dial.connect().await.expect("it listens");
                plan.open(&mut wire).await.expect("it listens");
                // The backend may well close in the middle of it.
                let _ = Plan { up, ..plan }.carry_out(wire).await;
            });
        }
        let found = || backend.errors() == 2;
        assert!(
            crate::process::wait_for(SOON, || found().then_some(())).is_some(),
            "{:?}",
            backend.counts
        );
    }
}
