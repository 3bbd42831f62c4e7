//! What every test here stands on: a runtime on a thread of its own with a time limit, and peers on plain sockets.

use ringway_runtime::{
    Accept, Address, BufferOptions, Capabilities, Errno, Handle, Leases, ListenOptions, Listener, Receive, Runtime,
    SendOutcome, SocketOptions, Stream, Unsent, socket,
};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// A test that is not over by then hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// How long peers wait for bytes before they call it a hang.
const PEER_LIMIT: Duration = Duration::from_secs(15);

/// 16 KiB in all: dry with every burst.
pub(crate) const SMALL: BufferOptions = BufferOptions { count: 16, size: 1024 };
/// 64 KiB in all: dry under load.
pub(crate) const TIGHT: BufferOptions = BufferOptions { count: 16, size: 4096 };
/// What the product uses.
pub(crate) const USUAL: BufferOptions = BufferOptions {
    count: 1024,
    size: 16 * 1024,
};

/// Runs `body` on a thread of its own and fails if it hangs.
pub(crate) fn limited<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = sender.send(body());
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(value) => {
            thread.join().expect("it has sent its value");
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not over after {LIMIT:?}: it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread without panic sends its value"),
        },
    }
}

pub(crate) fn new_runtime(buffers: BufferOptions) -> Runtime {
    let capabilities = Capabilities::probe().expect("these tests need io_uring");
    Runtime::new(&capabilities, buffers).expect("these tests need io_uring")
}

/// As on a kernel whose receives fill one buffer each.
pub(crate) fn run_without_bundles<T, F>(buffers: BufferOptions, test: impl FnOnce(Handle) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    limited(move || {
        let mut capabilities = Capabilities::probe().expect("these tests need io_uring");
        capabilities.bundles = false;
        let runtime = Runtime::new(&capabilities, buffers).expect("these tests need io_uring");
        let value = block_on(&runtime, test(runtime.handle().clone()));
        assert_quiet(&runtime);
        value
    })
}

/// Runs `test` as the main task of a runtime, then checks that nothing was left behind.
pub(crate) fn run<T, F>(buffers: BufferOptions, test: impl FnOnce(Handle) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    limited(move || {
        let runtime = new_runtime(buffers);
        let value = block_on(&runtime, test(runtime.handle().clone()));
        assert_quiet(&runtime);
        value
    })
}

/// The same with buffers for datagrams.
pub(crate) fn run_datagrams<T, F>(buffers: u16, test: impl FnOnce(Handle) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    limited(move || {
        let capabilities = Capabilities::probe().expect("these tests need io_uring");
        let runtime = Runtime::with_datagrams(&capabilities, SMALL, buffers).expect("these tests need io_uring");
        let value = block_on(&runtime, test(runtime.handle().clone()));
        assert_quiet(&runtime);
        value
    })
}

pub(crate) fn block_on<T: 'static>(runtime: &Runtime, future: impl Future<Output = T> + 'static) -> T {
    let slot = Rc::new(RefCell::new(None));
    let result = slot.clone();
    let main = async move {
        let value = future.await;
        *result.borrow_mut() = Some(value);
    };
    runtime.run(main, |_| {});
    slot.take().expect("the test's task panicked: see above")
}

/// Every task, socket, operation and buffer is back, except for the one operation that listens to other threads.
pub(crate) fn assert_quiet(runtime: &Runtime) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        runtime.turn(false);
        let stats = runtime.handle().stats();
        if (
            stats.tasks,
            stats.sockets,
            stats.operations,
            stats.buffers_out,
            stats.readers_starved,
            stats.pipes,
        ) == (0, 0, 1, 0, 0, 0)
        {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {stats:?}");
    }
}

/// Lets the loop make one turn.
pub(crate) async fn one_turn() {
    let mut polled = false;
    poll_fn(|context| {
        if polled {
            return Poll::Ready(());
        }
        polled = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Cancels of earlier operations have left the submission queue, and have taken effect.
pub(crate) async fn two_turns() {
    one_turn().await;
    one_turn().await;
}

/// Turns until `done`, each of them without waiting for the kernel.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        one_turn().await;
    }
}

/// A blocking `body` on a thread; its value can be awaited from any runtime.
pub(crate) fn in_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    struct Shared<T>(Option<thread::Result<T>>, Option<Waker>);
    let shared = Arc::new(Mutex::new(Shared(None, None)));
    let theirs = shared.clone();
    thread::spawn(move || {
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        let mut shared = theirs.lock().expect("no panic while locked");
        shared.0 = Some(value);
        if let Some(waker) = shared.1.take() {
            waker.wake();
        }
    });
    poll_fn(move |context| {
        let mut shared = shared.lock().expect("no panic while locked");
        match shared.0.take() {
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {
                shared.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
}

/// Lets tasks tell the main task how many of them are done.
#[derive(Clone, Default)]
pub(crate) struct Counter(Rc<RefCell<(usize, Option<Waker>)>>);

impl Counter {
    pub(crate) fn add(&self) {
        let mut state = self.0.borrow_mut();
        state.0 += 1;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    pub(crate) async fn reaches(&self, wanted: usize) {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if state.0 >= wanted {
                return Poll::Ready(());
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

pub(crate) fn loopback() -> Address {
    Address::Inet(([127, 0, 0, 1], 0).into())
}

pub(crate) fn inet(address: &Address) -> SocketAddr {
    match address {
        Address::Inet(address) => *address,
        Address::Unix(path) => panic!("not an inet address: {}", path.display()),
    }
}

pub(crate) const LISTEN: ListenOptions = ListenOptions {
    backlog: 4096,
    connection: SocketOptions {
        no_delay: true,
        keepalive: None,
    },
};

/// A listener of the runtime on a port of the kernel's choice.
pub(crate) fn listen(handle: &Handle) -> (Listener, SocketAddr) {
    let (socket, bound) = socket::listen(&loopback(), &LISTEN).expect("a free port");
    (handle.adopt_listener(socket), inet(&bound))
}

pub(crate) async fn accept(accept: &mut Accept) -> Result<Stream, Errno> {
    poll_fn(|context| accept.poll_next(context)).await
}

/// A connection of the runtime and its peer, a plain socket.
pub(crate) async fn pair(handle: &Handle) -> (Stream, TcpStream) {
    let (listener, address) = listen(handle);
    let mut accepting = listener.accept();
    // The kernel completes the handshake without anybody's help: this does not block.
    let peer = TcpStream::connect(address).expect("connect");
    peer.set_read_timeout(Some(PEER_LIMIT)).expect("setsockopt");
    peer.set_write_timeout(Some(PEER_LIMIT)).expect("setsockopt");
    peer.set_nodelay(true).expect("setsockopt");
    (accept(&mut accepting).await.expect("accept"), peer)
}

/// A connection that the runtime makes to a plain listening socket.
pub(crate) async fn connected(handle: &Handle) -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = Address::Inet(listener.local_addr().expect("bound"));
    let stream = handle
        .connect(&address, None, &SocketOptions::default())
        .expect("socket")
        .await
        .expect("connect");
    let (peer, _) = listener.accept().expect("accept");
    peer.set_read_timeout(Some(PEER_LIMIT)).expect("setsockopt");
    (stream, peer)
}

/// Sends everything, waiting for room as often as needed. Buffers of the ring are not held meanwhile: who waits for room
/// may wait for somebody who waits for buffers.
pub(crate) async fn send_all(stream: &Stream, leases: Leases) -> Result<(), Errno> {
    let mut outcome = stream.send(leases, true).await;
    loop {
        let Some((bytes, sent)) = unsent(outcome)? else {
            return Ok(());
        };
        stream.writable().await?;
        outcome = stream.send_bytes(bytes, sent, true).await;
    }
}

/// Bytes, and how many of the first are done.
type OwnBytes = (Box<[u8]>, u32);

/// What is left to send, in memory of its own.
fn unsent(outcome: SendOutcome) -> Result<Option<OwnBytes>, Errno> {
    match outcome {
        SendOutcome::All => Ok(None),
        SendOutcome::Failed(_, errno) => Err(errno),
        SendOutcome::Full(Unsent::Bytes { bytes, sent }) => Ok(Some((bytes, sent))),
        SendOutcome::Full(Unsent::Leases(leases)) => Ok(Some((leases.slices().flatten().copied().collect(), 0))),
    }
}

/// The same with sends that report nothing on success: what they did is known one turn later.
pub(crate) async fn send_all_silently(stream: &Stream, leases: Leases) -> Result<(), Errno> {
    let mut send = stream.send(leases, false);
    loop {
        one_turn().await;
        let outcome = poll_fn(|context| match send.poll_outcome(context) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => panic!("the outcome of a send was not known by the end of its turn"),
        })
        .await;
        let Some((bytes, sent)) = unsent(outcome)? else {
            return Ok(());
        };
        stream.writable().await?;
        send = stream.send_bytes(bytes, sent, false);
    }
}

/// A few bytes for which there is room.
pub(crate) async fn send_all_of(stream: &Stream, bytes: &[u8]) {
    let outcome = stream.send_bytes(bytes.into(), 0, true).await;
    assert!(matches!(outcome, SendOutcome::All), "{outcome:?}");
}

/// Everything until the orderly end.
pub(crate) async fn receive_all(receive: &mut Receive) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    while let Some(leases) = receive.next().await? {
        leases.slices().for_each(|slice| bytes.extend_from_slice(slice));
    }
    Ok(bytes)
}

/// Everything until there are `len` bytes.
pub(crate) async fn receive_len(receive: &mut Receive, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let leases = receive.next().await.expect("receive").expect("no end yet");
        leases.slices().for_each(|slice| bytes.extend_from_slice(slice));
    }
    bytes
}

/// `Some` if the receive has something to say by now.
pub(crate) async fn at_once(receive: &mut Receive) -> Option<Result<Option<Leases>, Errno>> {
    poll_fn(|context| match receive.poll_next(context) {
        Poll::Ready(said) => Poll::Ready(Some(said)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Everything that comes goes back; then the end.
pub(crate) async fn echo(stream: Stream, silently: bool) -> Result<(), Errno> {
    forward(&stream, &stream, silently).await
}

/// One direction of a relay.
pub(crate) async fn pump(from: &Stream, to: &Stream) -> Result<(), Errno> {
    forward(from, to, false).await
}

async fn forward(from: &Stream, to: &Stream, silently: bool) -> Result<(), Errno> {
    let mut receive = from.receive();
    while let Some(leases) = receive.next().await? {
        let mut send = to.send(leases, !silently);
        if silently {
            one_turn().await;
        }
        if let Some((rest, sent)) = unsent((&mut send).await)? {
            let mut rest = rest[sent as usize..].to_vec();
            hold(&mut receive, &mut rest).await?;
            to.writable().await?;
            send_rest(to, rest).await?;
            receive.resume();
        }
    }
    to.shutdown_write()
}

/// Stops receiving, and holds what came until then outside of the ring: who waits for room may wait for somebody who
/// waits for buffers.
async fn hold(receive: &mut Receive, held: &mut Vec<u8>) -> Result<(), Errno> {
    receive.pause();
    loop {
        let stopped = receive.is_paused();
        match at_once(receive).await {
            Some(Ok(Some(leases))) => leases.slices().for_each(|slice| held.extend_from_slice(slice)),
            // The end stays; it is seen again by whoever receives next.
            Some(Ok(None)) => return Ok(()),
            Some(Err(errno)) => return Err(errno),
            None if stopped => return Ok(()),
            None => one_turn().await,
        }
    }
}

async fn send_rest(to: &Stream, bytes: Vec<u8>) -> Result<(), Errno> {
    let mut outcome = to.send_bytes(bytes.into(), 0, true).await;
    while let Some((bytes, sent)) = unsent(outcome)? {
        to.writable().await?;
        outcome = to.send_bytes(bytes, sent, true).await;
    }
    Ok(())
}

/// Lends out every buffer of the ring. The receive that took them waits for more.
pub(crate) async fn all_buffers(handle: &Handle) -> (Leases, Stream, Receive) {
    let (available, count) = handle.buffers();
    assert_eq!(available, count, "somebody holds buffers already");
    let (stream, mut peer) = pair(handle).await;
    // One byte more than fits, so that the receive looks for another buffer.
    peer.write_all(&vec![b'x'; usize::from(count) * handle.buffer_size() as usize + 1])
        .expect("write");
    let mut receive = stream.receive();
    let mut held = handle.no_leases();
    while held.buffers() < count {
        held.append(receive.next().await.expect("receive").expect("bytes"));
    }
    until(|| handle.stats().readers_starved == 1).await;
    (held, stream, receive)
}

/// A listening socket that answers no more connections, and its address.
pub(crate) fn full_backlog() -> (Vec<socket2::Socket>, SocketAddr) {
    use socket2::{Domain, Protocol, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("socket");
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("bound").as_socket().expect("inet");
    let mut sockets = vec![listener];
    // The kernel completes backlog + 1 handshakes; the next client's last word is dropped, and later ones' first.
    for _ in 0..4 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("socket");
        let done = client
            .connect_timeout(&address.into(), Duration::from_millis(100))
            .is_ok();
        sockets.push(client);
        if !done {
            return (sockets, address);
        }
    }
    panic!("a backlog of 0 took 4 connections");
}

/// xorshift64*: small, seeded, the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to `bound - 1`.
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Fails with the first difference instead of printing megabytes.
pub(crate) fn assert_same(got: &[u8], wanted: &[u8], what: &str) {
    if got != wanted {
        let at = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
        panic!(
            "{what}: {} bytes of {}, first difference at {at:?}",
            got.len(),
            wanted.len()
        );
    }
}

/// A client that writes `len` seeded bytes in random pieces, reads until the end meanwhile, and expects them back.
pub(crate) fn exchange(address: SocketAddr, seed: u64, len: usize, piece_max: usize) {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("setsockopt");
    stream.set_read_timeout(Some(PEER_LIMIT)).expect("setsockopt");
    let mut random = Random::new(seed);
    let sent = random.bytes(len);
    let writer = {
        let (mut stream, sent) = (stream.try_clone().expect("dup"), sent.clone());
        thread::spawn(move || {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let piece = (1 + random.below(piece_max)).min(rest.len());
                stream.write_all(&rest[..piece]).expect("write");
                rest = &rest[piece..];
            }
            stream.shutdown(Shutdown::Write).expect("shutdown");
        })
    };
    let got = read_to_end(stream);
    writer.join().expect("the writer");
    assert_same(&got, &sent, &format!("seed {seed:#x}"));
}

/// A client that sends `size` bytes and waits for them to come back, `rounds` times.
pub(crate) fn ping_pong(address: SocketAddr, seed: u64, rounds: usize, size: usize) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("setsockopt");
    stream.set_read_timeout(Some(PEER_LIMIT)).expect("setsockopt");
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let sent = random.bytes(size);
        stream.write_all(&sent).expect("write");
        assert_same(
            &read_len(&stream, size),
            &sent,
            &format!("seed {seed:#x}, round {round}"),
        );
    }
}

/// Everything until the end; panics on an error or a hang.
pub(crate) fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an orderly end");
    bytes
}

pub(crate) fn read_len(mut stream: impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("that many bytes");
    bytes
}

/// Writes everything and hands the socket back, still open.
pub(crate) fn write_and_return(mut peer: TcpStream, bytes: &[u8]) -> TcpStream {
    peer.write_all(bytes).expect("write");
    peer
}

/// Makes the next close of a plain socket send a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("setsockopt");
}
