//! What is said to a backend before its client's bytes are relayed.

use super::connect::classify;
use crate::state::WorkerState;
use crate::tcp::Head;
use ringway_core::reason::ConnectError;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{SendOutcome, Stream};
use ringway_wire::postgres::SSL_REQUEST;

/// Asks a PostgreSQL server for TLS, as the client has asked us, behind `first` (a PROXY header, or nothing). Returns what
/// goes on behind the answer.
///
/// # Errors
/// It does not speak TLS, or could not be asked.
pub(super) async fn postgres(worker: &WorkerState, stream: &Stream, first: &[u8]) -> Result<Box<Head>, ConnectError> {
    let asked = if active(Fault::HeaderBehindGreeting) {
        [&SSL_REQUEST, first].concat()
    } else {
        [first, &SSL_REQUEST].concat()
    };
    match stream.send_bytes(asked.into(), 0, true).await {
        SendOutcome::All => {}
        // Nothing was sent to it before: there is room.
        SendOutcome::Full(_) => return Err(ConnectError::Local),
        SendOutcome::Failed(_, errno) => return Err(classify(errno)),
    }
    let mut receive = stream.receive_once(1);
    if active(Fault::GreetingNotAwaited) {
        return Ok(Box::new(Head::new(receive, Vec::new(), worker.handle.no_leases())));
    }
    let answer = receive.next().await.map_err(classify)?;
    // It ended instead of answering.
    let Some(answer) = answer else {
        return Err(ConnectError::Reset);
    };
    let first = answer.slices().next().unwrap_or_default();
    // Nothing may follow: the server waits for the hello.
    let dropped = first.first() == Some(&b'S') && active(Fault::GreetingRestDropped);
    if first != b"S" && !dropped {
        return Err(ConnectError::NoTls);
    }
    Ok(Box::new(Head::new(receive, Vec::new(), worker.handle.no_leases())))
}
