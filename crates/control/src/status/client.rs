//! Asks a running process for its status over HTTP: one request, one connection, bounded in time and bytes.
//!
//! Blocks its caller. Called by `ringway status` and `ringway demo`.

use super::{PATH, Status};
use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// For a whole answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Of an answer; 100,000 backends fit.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Why there is no status. Displays as a whole sentence.
#[derive(Debug)]
pub enum AskError {
    /// Nothing listens there, or it cannot be reached.
    Unreachable(SocketAddr, io::Error),
    /// No answer, or not all of it, within [`ANSWER_TIME_MAX`].
    TimedOut(SocketAddr),
    /// What answers does not speak HTTP, or ended in the middle of its answer.
    Broken(SocketAddr, String),
    /// What answers is something else, or too old.
    NoStatus(SocketAddr, StatusCode),
    /// The answer is no status document.
    NotUnderstood(SocketAddr, serde_json::Error),
}

/// Asks one admin port.
#[derive(Debug)]
pub struct Client {
    admin: SocketAddr,
    runtime: Runtime,
}

impl Client {
    /// Of this admin port; connects to nothing yet.
    pub fn new(admin: SocketAddr) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { admin, runtime })
    }

    /// The document as it was sent.
    pub fn document(&self) -> Result<String, AskError> {
        let answer = async { timeout(ANSWER_TIME_MAX, ask(self.admin)).await };
        self.runtime
            .block_on(answer)
            .unwrap_or(Err(AskError::TimedOut(self.admin)))
    }

    /// The status as values.
    pub fn status(&self) -> Result<Status, AskError> {
        let document = self.document()?;
        serde_json::from_str(&document).map_err(|error| AskError::NotUnderstood(self.admin, error))
    }
}

async fn ask(admin: SocketAddr) -> Result<String, AskError> {
    let broken = |error: &dyn fmt::Display| AskError::Broken(admin, error.to_string());
    let stream = TcpStream::connect(admin)
        .await
        .map_err(|error| AskError::Unreachable(admin, error))?;
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let request = Request::get(PATH)
        .header(header::HOST, admin.to_string())
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .map_err(|error| broken(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(AskError::NoStatus(admin, answer.status()));
        }
        let bytes = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX)
            .await
            .map_err(|error| broken(&error))?;
        String::from_utf8(bytes.into()).map_err(|error| broken(&error))
    };
    // The connection only moves while it is polled; how it ends is told by the answer.
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    let mut open = true;
    poll_fn(|context| {
        if open && connection.as_mut().poll(context).is_ready() {
            open = false;
        }
        answer.as_mut().poll(context)
    })
    .await
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(admin, error) if error.kind() == io::ErrorKind::ConnectionRefused => write!(
                f,
                "nothing answers at {admin}: is ringway running, and with this admin port?"
            ),
            Self::Unreachable(admin, error) => write!(f, "{admin} cannot be reached: {error}"),
            Self::TimedOut(admin) => write!(
                f,
                "{admin} does not answer within {} s: does something else listen there?",
                ANSWER_TIME_MAX.as_secs()
            ),
            Self::Broken(admin, error) => write!(
                f,
                "what answers at {admin} is no ringway, or it stopped in between: {error}"
            ),
            Self::NoStatus(admin, code) => write!(
                f,
                "{admin} answers, but has no status ({code} for {PATH}): is it another program, or an older ringway?"
            ),
            Self::NotUnderstood(admin, error) => write!(
                f,
                "the status of {admin} cannot be read: {error}; is it a ringway of another version?"
            ),
        }
    }
}

impl std::error::Error for AskError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// Asks a server that gives this answer to whatever it is asked; what it was asked comes back too.
    fn asked(answer: &'static str) -> (Result<Status, AskError>, String) {
        let server = TcpListener::bind("127.0.0.1:0").expect("binds");
        let admin = server.local_addr().expect("is bound");
        let server = thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("is asked");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("asks on");
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).expect("answers");
            String::from_utf8(request).expect("UTF-8")
        });
        let status = Client::new(admin).expect("starts").status();
        (status, server.join().expect("answered"))
    }

    #[test]
    fn a_status_is_asked_for_and_read() {
        let (status, request) = asked(
            "HTTP/1.1 200 OK\r\ncontent-length: 55\r\n\r\n{\"version\":\"0.1.0\",\"workers\":2,\"a_field_of_later\":null}",
        );
        let status = status.expect("is one");
        assert_eq!((status.version.as_str(), status.workers), ("0.1.0", 2));
        assert!(request.starts_with("GET /api/v1/status HTTP/1.1\r\n"), "{request}");
    }

    #[test]
    fn what_goes_wrong_is_a_sentence() {
        for (answer, sentence) in [
            (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                "has no status (404 Not Found for /api/v1/status)",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "cannot be read"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{", "stopped in between"),
            ("220 mail.example.com ESMTP\r\n", "is no ringway"),
        ] {
            let error = asked(answer).0.expect_err("is none").to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn where_nothing_listens_the_question_is_whether_it_runs() {
        let free = TcpListener::bind("127.0.0.1:0")
            .expect("binds")
            .local_addr()
            .expect("is bound");
        let error = Client::new(free)
            .expect("starts")
            .status()
            .expect_err("nobody is there");
        assert_eq!(
            error.to_string(),
            format!("nothing answers at {free}: is ringway running, and with this admin port?")
        );
    }
}
