//! Backends of the tests, and the checks that ask them. A backend lives as long as its test's runtime.

use ringway_control::probe::{ProbeError, Prober, WORDS_MAX};
use ringway_core::model::{Address, HealthCheck, Probe};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// For things that never take long; only a failing test waits for it.
pub(crate) const AMPLE: Duration = Duration::from_secs(10);

pub(crate) fn check(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        port: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        fails: 3,
        passes: 2,
    }
}

pub(crate) fn check_within(probe: Probe, millis: u64) -> HealthCheck {
    HealthCheck {
        timeout: Duration::from_millis(millis),
        ..check(probe)
    }
}

pub(crate) async fn ask(check: &HealthCheck, address: &Address) -> Result<String, ProbeError> {
    ask_named(check, address, None).await
}

pub(crate) async fn ask_named(
    check: &HealthCheck,
    address: &Address,
    name: Option<&str>,
) -> Result<String, ProbeError> {
    let prober = Prober::new(check, None).expect("can be prepared");
    let result = timeout(AMPLE, prober.run(address, name)).await.expect("is bounded");
    let (Ok(words) | Err(ProbeError::Failed(words) | ProbeError::Local(words))) = &result;
    assert!(words.len() <= WORDS_MAX, "{words}");
    assert!(!words.contains(char::is_control), "{words:?}");
    result
}

/// Fails with the words that the backend's doing asks for, not before `millis` and not long after.
pub(crate) async fn fails_after(millis: u64, check: &HealthCheck, address: &Address, words: &str) {
    let started = Instant::now();
    assert_eq!(ask(check, address).await, failed(words));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(millis), "{took:?}");
    assert!(took < Duration::from_millis(millis + 1000), "{took:?}");
}

pub(crate) fn failed(words: &str) -> Result<String, ProbeError> {
    Err(ProbeError::Failed(words.to_owned()))
}

/// The probe passed and its words begin so.
pub(crate) fn assert_passed(result: &Result<String, ProbeError>, words: &str) {
    assert!(result.as_ref().is_ok_and(|seen| seen.starts_with(words)), "{result:?}");
}

pub(crate) async fn backend<F>(handler: impl Fn(TcpStream) -> F + Send + 'static) -> Address
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handler(stream));
        }
    });
    Address::Inet(address)
}

pub(crate) fn unix_backend<F>(handler: impl Fn(UnixStream) -> F + Send + 'static) -> Address
where
    F: Future<Output = ()> + Send + 'static,
{
    let scratch = Scratch::new("sock");
    let address = Address::Unix(scratch.0.clone());
    let listener = UnixListener::bind(&scratch.0).expect("binds");
    tokio::spawn(async move {
        let _kept = scratch;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handler(stream));
        }
    });
    address
}

/// A path of its own, short enough for a UNIX socket; what lies there goes with it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(end: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("ringway-probe-{}-{number}.{end}", process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A port that is taken and on which nobody listens.
pub(crate) fn refusing() -> (TcpSocket, Address) {
    let socket = TcpSocket::new_v4().expect("opens");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
    let address = socket.local_addr().expect("is bound");
    (socket, Address::Inet(address))
}

/// Takes the connection, says these bytes, ends its side, and reads until the other one has ended too.
pub(crate) async fn say(mut stream: TcpStream, bytes: Vec<u8>) {
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// Says nothing and keeps the connection until the other side ends.
pub(crate) async fn stay_silent(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// One byte every 10 ms for as long as somebody is there.
pub(crate) async fn drip(mut stream: TcpStream, byte: u8) {
    while stream.write_all(&[byte]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends the connection with a reset.
pub(crate) fn reset(stream: &TcpStream) {
    stream.set_zero_linger().expect("sets");
}

/// Everything until the end, or how else it ended.
pub(crate) async fn until_the_end(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// What a backend has to tell its test.
pub(crate) fn told<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    unbounded_channel()
}

pub(crate) async fn heard<T>(receiver: &mut UnboundedReceiver<T>) -> T {
    timeout(AMPLE, receiver.recv())
        .await
        .expect("in time")
        .expect("is told")
}
