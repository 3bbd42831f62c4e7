//! The admin port: metrics, status and health over HTTP, reading only.
//!
//! Bounded so that nobody can hurt the process from here: one request per connection, a total time per connection that
//! no byte extends, few connections at once (the oldest makes room), small heads. Answers although the data plane used
//! every descriptor: besides the reserve that `ringway_core::limits` keeps out of the data plane's reach it holds
//! `Spares`. Never changes anything. Called by `supervisor`.

use crate::metrics;
use crate::readiness::Phase;
use crate::status::{self, Live};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::errno::Errno;
use ringway_core::limits::RESERVE_ADMIN;
use serde_json::json;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 12;
/// Descriptors that are held only to be let go when there are none left.
pub const SPARES: usize = 4;
// The listener, its connections and the spares are what the arithmetic of limits keeps out of the data plane's reach.
const _: () = assert!(1 + CONNECTIONS_MAX + SPARES <= RESERVE_ADMIN as usize);
/// For the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(3);
/// For a whole connection, reading and writing.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head; also what one write buffers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Before accepting is tried again after an error that does not pass by itself.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The bound admin port; nothing is answered before [`Admin::serve`].
#[derive(Debug)]
pub struct Admin(std::net::TcpListener);

impl Admin {
    /// Binds the port. The error is a whole sentence.
    pub fn bind(address: SocketAddr) -> Result<Self, String> {
        let listener = std::net::TcpListener::bind(address).map_err(|error| bind_sentence(address, &error))?;
        listener
            .set_nonblocking(true)
            .map_err(|error| bind_sentence(address, &error))?;
        Ok(Self(listener))
    }

    /// As bound: port 0 is replaced by the real one.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until dropped; must be called inside a tokio runtime with timers and sockets.
    pub async fn serve(self, live: Arc<Live>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.0)?;
        let service = TowerToHyperService::new(routes(live));
        let spares = Spares::default();
        spares.refill();
        let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => {
                    open.retain(|connection| !connection.is_finished());
                    if open.len() >= CONNECTIONS_MAX {
                        close_oldest(&mut open);
                    }
                    open.push_back(tokio::spawn(serve_connection(stream, service.clone(), spares.clone())));
                }
                Err(error) if is_exhausted(&error) => {
                    if !spares.let_one_go() {
                        close_oldest(&mut open);
                        sleep(RETRY_DELAY).await;
                    }
                }
                // The client went away while it waited; the next one may be fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => sleep(RETRY_DELAY).await,
            }
        }
    }
}

fn close_oldest(open: &mut VecDeque<JoinHandle<()>>) {
    if let Some(oldest) = open.pop_front() {
        oldest.abort();
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE)
    )
}

async fn serve_connection(stream: TcpStream, service: TowerToHyperService<Router>, spares: Spares) {
    // Declared first, so dropped after the stream: its descriptor becomes a spare again before a worker takes it.
    let _refill = RefillOnDrop(spares);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong here is the client's business: it sees its connection end.
    let _ = timeout(CONNECTION_TIME_MAX, connection).await;
}

/// Descriptors of nothing. Accepting needs one; when the process has none left, one of these is let go first.
#[derive(Clone, Debug, Default)]
struct Spares(Arc<Mutex<Vec<File>>>);

impl Spares {
    fn refill(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while held.len() < SPARES {
            let Ok(spare) = File::open("/dev/null") else { return };
            held.push(spare);
        }
    }

    fn let_one_go(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().is_some()
    }
}

struct RefillOnDrop(Spares);

impl Drop for RefillOnDrop {
    fn drop(&mut self) {
        self.0.refill();
    }
}

fn routes(live: Arc<Live>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route(status::PATH, get(status_document))
        .route("/health", get(health))
        .route("/health/ready", get(ready))
        .route("/health/live", get(|| async { Json(json!({ "status": "alive" })) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, METHOD_NOT_ALLOWED) })
        .with_state(live)
}

const NOT_FOUND: &str = "nothing here; there are /metrics, /api/v1/status, /health, /health/live and /health/ready\n";
const METHOD_NOT_ALLOWED: &str = "this port only reads: use GET or HEAD\n";

async fn metrics_page(State(live): State<Arc<Live>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics::page(&live.observed),
    )
}

async fn status_document(State(live): State<Arc<Live>>) -> impl IntoResponse {
    Json(live.document())
}

/// Whether new clients may be sent here: what Kubernetes calls ready. Says nothing of backends: with all of them down,
/// another balancer of the same kind would help no client.
async fn ready(State(live): State<Arc<Live>>) -> impl IntoResponse {
    let (code, phase) = phase(&live);
    (code, Json(json!({ "status": phase })))
}

/// The same with each pool's backends, for people and for those who want to alarm on it.
async fn health(State(live): State<Arc<Live>>) -> impl IntoResponse {
    let (code, phase) = phase(&live);
    let mut pools = serde_json::Map::new();
    let boards = live.observed.board.pools();
    for (pool, board) in live.observed.snapshot.model.pools.iter().zip(boards.iter()) {
        let usable = json!({ "usable": board.usable, "backends": board.backends.len() });
        pools.insert(pool.name.to_string(), usable);
    }
    (code, Json(json!({ "status": phase, "pools": pools })))
}

fn phase(live: &Live) -> (StatusCode, &'static str) {
    match live.readiness.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Ready => (StatusCode::OK, "ready"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

fn bind_sentence(address: SocketAddr, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; choose another address or switch the port off",
        io::ErrorKind::PermissionDenied => {
            "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        _ => "choose another address or switch the port off",
    };
    format!("admin: cannot listen on {address}: {error}; {cure} (admin.bind, --admin)")
}
