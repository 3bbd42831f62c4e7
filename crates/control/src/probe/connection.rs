//! The connection of a probe: made, held, closed. The only place that opens sockets for probes.

use super::ProbeError;
use super::limit::Limit;
use super::words;
use ringway_core::model::Address;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout_at};

/// TCP, a UNIX socket, or TLS over one of them.
pub(super) trait Connection: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Connection for T {}

/// How long a TCP probe watches a connection that was accepted. What stands in front of a dead server (a published port
/// of a container, a tunnel, another balancer) accepts first and ends the connection when it finds nobody behind.
pub(super) const HOLD_TIME: Duration = Duration::from_millis(100);
const WITHIN_HOLD_TIME: &str = " within 100 ms";
/// How long the backend may take to end its side after we ended ours.
pub(super) const CLOSE_TIME_MAX: Duration = Duration::from_millis(100);
/// Bytes that are read and forgotten while closing.
pub(super) const CLOSE_BYTES_MAX: usize = 64 * 1024;
/// Before connecting to a UNIX socket whose queue is full is tried again.
const QUEUE_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Connects; the caller bounds the time.
pub(super) async fn connect(address: &Address) -> Result<Box<dyn Connection>, ProbeError> {
    match address {
        Address::Inet(address) => {
            let stream = TcpStream::connect(*address)
                .await
                .map_err(|error| words::fault(&error, ""))?;
            if stream.local_addr().is_ok_and(|own| is_own(own, *address)) {
                return Err(ProbeError::Failed("connection refused".to_owned()));
            }
            // Questions are short and each waits for its answer; without it they would only come later.
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
        Address::Unix(path) => loop {
            match UnixStream::connect(path).await {
                Ok(stream) => return Ok(Box::new(stream)),
                // The queue is full. On TCP the kernel would go on trying; here that is left to us.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_RETRY_DELAY).await,
                Err(error) => return Err(words::fault(&error, "")),
            }
        },
    }
}

/// Sends bytes; the caller bounds the time.
pub(super) async fn send(connection: &mut dyn Connection, bytes: &[u8]) -> Result<(), ProbeError> {
    let sent = connection.write_all(bytes).await;
    sent.map_err(|error| words::fault(&error, ""))
}

/// A port of this machine on which nobody listens can be drawn as our own, and then TCP joins us to ourselves.
fn is_own(own: SocketAddr, backend: SocketAddr) -> bool {
    own.ip() == backend.ip() && own.port() == backend.port()
}

/// What a TCP probe asks: whether the connection stands for [`HOLD_TIME`] (or until the deadline, if that is sooner).
/// The first byte ends the wait: somebody lives there who speaks first.
///
/// MySQL and MariaDB count a connection that ends before the login against the host it came from, in whatever manner it
/// ends, and bar the host after `max_connect_errors` (100) of them in a row. A login through the balancer comes from the
/// same host and sets the count back; a pool without logins, of backups for instance, has none. There the value must be
/// raised on the server, or a port be probed that is not the database's own.
pub(super) async fn hold(connection: &mut dyn Connection, limit: &Limit) -> Result<(), ProbeError> {
    match timeout_at(limit.at_most(HOLD_TIME), connection.read_u8()).await {
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(words::fault(&error, WITHIN_HOLD_TIME)),
    }
}

/// Closes in order: ends our side, then reads until the backend has ended its own. The kernel answers bytes that nobody
/// read with a reset, and a reset is what servers log and count: PostgreSQL writes a line for it, and none for a client
/// that ends in order before its first byte. Bounded in time and bytes; past that the reset is what the backend wants.
pub(super) async fn close(mut connection: Box<dyn Connection>, limit: &Limit) {
    let ended = async {
        connection.shutdown().await?;
        let mut rest = [0; 4096];
        let mut bytes = 0;
        while bytes < CLOSE_BYTES_MAX {
            match connection.read(&mut rest).await? {
                0 => break,
                count => bytes += count,
            }
        }
        io::Result::Ok(())
    };
    // The verdict is out: however this ends, it says nothing about the backend.
    let _ = timeout_at(limit.at_most(CLOSE_TIME_MAX), ended).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_ourselves_is_told_from_others() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert!(is_own(at("127.0.0.1:40000"), at("127.0.0.1:40000")));
        assert!(!is_own(at("127.0.0.1:40001"), at("127.0.0.1:40000")));
        assert!(!is_own(at("127.0.0.2:40000"), at("127.0.0.1:40000")));
    }
}
