//! Three small HTTP servers, each with a character: one is quick, one is slow, one fails now and then.
//!
//! They answer on free ports of 127.0.0.1, from one thread, until they are dropped. Called by `ringway demo`.

use super::{Either, either};
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

/// How a backend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Character {
    /// As it calls itself.
    pub name: &'static str,
    /// For telling its answers apart at a glance.
    pub colour: &'static str,
    /// Before each answer.
    pub delay: Duration,
    /// Of so many connections one is reset before it is answered; probes are spared.
    pub resets_one_in: Option<u64>,
    /// How long `/health` answers 503, at the end of each period.
    pub sick: Option<Sick>,
}

/// A backend that is not well, by its own account, for a part of each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sick {
    /// From one sickness to the next.
    pub every: Duration,
    /// Of each.
    pub lasts: Duration,
}

impl Sick {
    /// Whether it is, so long after its start.
    pub fn is_sick(&self, after: Duration) -> bool {
        let every = self.every.as_millis().max(1);
        after.as_millis() % every >= every.saturating_sub(self.lasts.as_millis())
    }
}

/// The backends of the demo, in their order.
pub const CHARACTERS: [Character; 3] = [
    Character {
        name: "backend-a",
        colour: "green",
        delay: Duration::ZERO,
        resets_one_in: None,
        sick: None,
    },
    Character {
        name: "backend-b",
        colour: "blue",
        delay: Duration::from_millis(150),
        resets_one_in: None,
        sick: None,
    },
    Character {
        name: "backend-c",
        colour: "orange",
        delay: Duration::ZERO,
        resets_one_in: Some(10),
        sick: Some(Sick {
            every: Duration::from_secs(40),
            lasts: Duration::from_secs(5),
        }),
    },
];

/// Running backends; they end when this is dropped.
#[derive(Debug)]
pub struct Backends {
    addresses: Vec<SocketAddr>,
    /// Parallel: whether each of them listens.
    open: Vec<watch::Sender<bool>>,
}

impl Backends {
    /// Starts one backend for each character.
    pub fn start(characters: &[Character]) -> io::Result<Self> {
        let mut backends = Self {
            addresses: Vec::new(),
            open: Vec::new(),
        };
        let mut starting = Vec::new();
        for &character in characters {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            backends.addresses.push(listener.local_addr()?);
            let (open, is_open) = watch::channel(true);
            backends.open.push(open);
            starting.push((character, listener, is_open));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("demo-backends".to_owned()).spawn(move || {
            let tasks = LocalSet::new();
            for (character, listener, is_open) in starting {
                tasks.spawn_local(live(character, listener, is_open));
            }
            runtime.block_on(tasks);
        })?;
        Ok(backends)
    }

    /// Where they listen, parallel to their characters.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Opens or shuts one: shut, its listener is closed and its connections are reset.
    pub fn set_open(&self, index: usize, open: bool) {
        if let Some(is_open) = self.open.get(index) {
            is_open.send_replace(open);
        }
    }
}

/// Before a port that somebody else took meanwhile is tried again.
const BIND_RETRY: Duration = Duration::from_millis(200);

/// What the connections of one backend share.
struct Shared {
    character: Character,
    started: Instant,
    /// Answered requests, apart from `/health`.
    requests: Cell<u64>,
    /// Connections, apart from those of probes.
    connections: Cell<u64>,
    is_open: watch::Receiver<bool>,
}

/// One backend, from its start until nobody can open it any more.
async fn live(character: Character, first: std::net::TcpListener, mut is_open: watch::Receiver<bool>) {
    let Ok(address) = first.local_addr() else { return };
    let shared = Rc::new(Shared {
        character,
        started: Instant::now(),
        requests: Cell::new(0),
        connections: Cell::new(0),
        is_open: is_open.clone(),
    });
    let mut listener = TcpListener::from_std(first).ok();
    loop {
        if !*is_open.borrow_and_update() {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => {
                    sleep(BIND_RETRY).await;
                    Err(io::ErrorKind::NotConnected.into())
                }
            }
        };
        match either(is_open.changed(), accepted).await {
            Either::First(Ok(())) => {}
            Either::First(Err(_nobody_holds_the_other_end)) => return,
            Either::Second(Ok((stream, _))) => {
                tokio::task::spawn_local(serve(shared.clone(), stream));
            }
            Either::Second(Err(_)) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// One connection. When the backend is shut meanwhile, it is reset.
async fn serve(shared: Rc<Shared>, stream: TcpStream) {
    let mut is_open = shared.is_open.clone();
    // An error says that nobody can open it any more, which is as good as shut.
    let mut shut = pin!(async { drop(is_open.wait_for(|open| !open).await) });
    match either(shut.as_mut(), shared.wants_to_reset(&stream)).await {
        Either::First(()) => return reset(&stream),
        // With what the client has sent still unread, closing is a reset.
        Either::Second(true) => return,
        Either::Second(false) => {}
    }
    let service = service_fn(|request| shared.answer(request));
    let mut connection = http1::Builder::new()
        // A client that has asked may end its side and still wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Either::First(()) = either(shut, &mut connection).await {
        reset(&connection.into_parts().io.into_inner());
    }
}

/// Closing it will be a reset. It fails only when the connection has ended already.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

impl Shared {
    async fn wants_to_reset(&self, stream: &TcpStream) -> bool {
        let Some(one_in) = self.character.resets_one_in else {
            return false;
        };
        let mut begin = [0; PROBE.len()];
        // A request may come in pieces.
        for _ in 0..PIECES_MAX {
            let Ok(peeked) = stream.peek(&mut begin).await else {
                return false;
            };
            match Beginning::of(&begin[..peeked]) {
                Beginning::Nothing | Beginning::Probe => return false,
                Beginning::Either => sleep(PIECE).await,
                Beginning::Request => break,
            }
        }
        self.connections.set(self.connections.get() + 1);
        self.connections.get().is_multiple_of(one_in)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if !self.character.delay.is_zero() {
            sleep(self.character.delay).await;
        }
        if request.uri().path() == "/health" {
            let sick = self
                .character
                .sick
                .is_some_and(|sick| sick.is_sick(self.started.elapsed()));
            let (code, text) = if sick {
                (StatusCode::SERVICE_UNAVAILABLE, "not well\n")
            } else {
                (StatusCode::OK, "well\n")
            };
            let mut answer = Response::new(Body::from(text));
            *answer.status_mut() = code;
            return Ok(answer);
        }
        self.requests.set(self.requests.get() + 1);
        let Character { name, colour, .. } = self.character;
        let text = format!("hello from {name} ({colour}, request {})\n", self.requests.get());
        Ok(Response::new(Body::from(text)))
    }
}

/// How long, and how often, the rest of a request's beginning is waited for.
const PIECE: Duration = Duration::from_millis(1);
const PIECES_MAX: u32 = 100;
/// How the request of a probe begins.
const PROBE: &[u8] = b"GET /health";

/// What the first bytes of a connection tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It has ended.
    Nothing,
    /// Too few to tell.
    Either,
    Probe,
    Request,
}

impl Beginning {
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            Self::Nothing
        } else if bytes.starts_with(PROBE) {
            Self::Probe
        } else if PROBE.starts_with(bytes) {
            Self::Either
        } else {
            Self::Request
        }
    }
}
