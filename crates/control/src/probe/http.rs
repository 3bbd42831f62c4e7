//! One HTTP/1.1 request and what is expected of its answer.
//!
//! The protocol is hyper's; here are only the request, the limits and the verdict. Follows no redirect, sends no
//! credentials, keeps no connection.

use super::ProbeError;
use super::connection::{CLOSE_BYTES_MAX, CLOSE_TIME_MAX, Connection};
use super::exchange::Answer;
use super::limit::Limit;
use super::words;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use ringway_core::model::{Address, ProbeHttp};
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::timeout_at;

/// Offered with TLS.
pub(super) const ALPN: &[u8] = b"http/1.1";
/// Bytes of the body that are looked at.
pub(super) const BODY_MAX: usize = 64 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
const HEAD_TOO_LONG: &str = "the head of the answer is longer than 16 KiB or has more than 100 headers";
const ENDED_EARLY: &str = "ended by the backend before the answer was complete";
const AGENT: &str = concat!("ringway/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub(super) struct Http {
    method: Method,
    path: Uri,
    /// `None`: the backend's own.
    host: Option<HeaderValue>,
    status: Vec<(u16, u16)>,
    body: Option<Arc<str>>,
}

impl Http {
    /// The error is a whole sentence.
    pub(super) fn new(probe: &ProbeHttp) -> Result<Self, String> {
        let method = Method::from_bytes(probe.method.as_bytes())
            .map_err(|_| format!("{:?} is no HTTP method; write GET, HEAD or OPTIONS", probe.method))?;
        if method == Method::HEAD && probe.body.is_some() {
            return Err("the answer to a HEAD request has no body that could contain anything; write GET".to_owned());
        }
        let path = probe.path.parse().map_err(|_| {
            format!(
                "{:?} cannot be sent as an HTTP path; write one that begins with / and has %20 in place of spaces",
                probe.path
            )
        })?;
        let host = probe.host.as_deref().map(|host| {
            HeaderValue::try_from(host).map_err(|_| format!("{host:?} cannot be sent as the header Host; write a name"))
        });
        Ok(Self {
            method,
            path,
            host: host.transpose()?,
            status: probe.status.clone(),
            body: probe.body.clone(),
        })
    }

    /// Asks over a connection that stands, and closes it. `host` is sent unless the check names another.
    pub(super) async fn run(
        &self,
        connection: Box<dyn Connection>,
        host: &str,
        limit: &Limit,
    ) -> Result<String, ProbeError> {
        let request = self.request(host)?;
        let handshake = Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            // Written as people write them, for servers that compare letter by letter.
            .title_case_headers(true)
            .handshake(TokioIo::new(connection));
        let (sender, transport) = handshake.await.map_err(|error| fault(&error))?;
        let mut transport = pin!(Transport(Some(transport)));
        let mut body = None;
        let verdict = self.judge(sender, request, &mut body, limit);
        let verdict = beside(transport.as_mut(), verdict).await;
        if let Some(body) = body {
            // As in `connection::close`: bytes that nobody read would turn the end into a reset.
            let closing = limit.at_most(CLOSE_TIME_MAX);
            let _ = timeout_at(closing, beside(transport.as_mut(), read_out(body))).await;
            let _ = timeout_at(closing, transport).await;
        }
        verdict
    }

    fn request(&self, host: &str) -> Result<Request<String>, ProbeError> {
        let host = match &self.host {
            Some(host) => host.clone(),
            None => HeaderValue::try_from(host)
                .map_err(|_| ProbeError::Local(format!("{host:?} cannot be sent as the header Host")))?,
        };
        // A text is the shortest empty body that hyper takes.
        let mut request = Request::new(String::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    /// Leaves the body, as far as it was not read, in `rest`.
    async fn judge(
        &self,
        mut sender: SendRequest<String>,
        request: Request<String>,
        rest: &mut Option<Incoming>,
        limit: &Limit,
    ) -> Result<String, ProbeError> {
        let head = async { sender.send_request(request).await.map_err(|error| fault(&error)) };
        let (head, body) = limit.within("", head).await?.into_parts();
        let body = rest.insert(body);
        let status = head.status.as_u16();
        if !self
            .status
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
        {
            let expected = expected(&self.status);
            return Err(ProbeError::Failed(format!("HTTP status {status}, expected {expected}")));
        }
        if let Some(text) = self.body.as_deref().filter(|text| !text.is_empty()) {
            let Ok(found) = timeout_at(limit.deadline(), find(text, body)).await else {
                let within = limit.words();
                return Err(ProbeError::Failed(format!(
                    "HTTP status {status}, but no complete body {within}"
                )));
            };
            found.map_err(|error| prefixed(status, error))?;
        }
        Ok(format!("HTTP status {status} {}", limit.elapsed()))
    }
}

/// What the header `Host` says if the check does not: the backend's name or address, with the port unless it goes
/// without saying (RFC 9110, section 7.2).
pub(super) fn default_host(address: &Address, name: Option<&str>, tls: bool) -> String {
    let Address::Inet(address) = address else {
        return name.unwrap_or("localhost").to_owned();
    };
    let host = match name {
        Some(name) => name.to_owned(),
        None if address.is_ipv6() => format!("[{}]", address.ip()),
        None => address.ip().to_string(),
    };
    match (address.port(), tls) {
        (80, false) | (443, true) => host,
        (port, _) => format!("{host}:{port}"),
    }
}

/// "200-399, 404"
fn expected(ranges: &[(u16, u16)]) -> String {
    let words = ranges.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

fn prefixed(status: u16, error: ProbeError) -> ProbeError {
    match error {
        ProbeError::Failed(why) => ProbeError::Failed(format!("HTTP status {status}, but {why}")),
        ProbeError::Local(why) => ProbeError::Local(why),
    }
}

/// Reads until the body contains the text.
async fn find(text: &str, body: &mut Incoming) -> Result<(), ProbeError> {
    let mut answer = Answer::new(BODY_MAX);
    while let Some(bytes) = next(body).await {
        if answer.take(&bytes.map_err(|error| fault(&error))?, text.as_bytes()) {
            return Ok(());
        }
        if answer.is_full() {
            let why = format!(
                "the first 64 KiB of the body do not contain {}",
                words::quoted(text.as_bytes())
            );
            return Err(ProbeError::Failed(why));
        }
    }
    let why = format!("the body does not contain {}", words::quoted(text.as_bytes()));
    Err(ProbeError::Failed(why))
}

/// The next bytes of a body, none in place of trailers.
async fn next(body: &mut Incoming) -> Option<hyper::Result<hyper::body::Bytes>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

async fn read_out(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(more)) = next(&mut body).await {
        bytes += more.len();
        if bytes > CLOSE_BYTES_MAX {
            break;
        }
    }
}

/// Does the work while the transport moves the bytes that it waits for. A task of its own would outlive a dropped probe.
async fn beside<T>(mut transport: Pin<&mut impl Future>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        // How the transport ended is told to the work.
        let _ = transport.as_mut().poll(context);
        work.as_mut().poll(context)
    })
    .await
}

/// hyper's side of the connection, which may be polled again after its end.
struct Transport(Option<Http1>);

type Http1 = hyper::client::conn::http1::Connection<TokioIo<Box<dyn Connection>>, String>;

impl Future for Transport {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(open) = &mut self.0 else {
            return Poll::Ready(());
        };
        let ended = Pin::new(open).poll(context).map(|_| ());
        if ended.is_ready() {
            self.0 = None;
        }
        ended
    }
}

/// What hyper met: of the socket, or of what was said.
fn fault(error: &hyper::Error) -> ProbeError {
    if let Some(cause) = socket_error(error) {
        return match cause.kind() {
            io::ErrorKind::UnexpectedEof => ProbeError::Failed(ENDED_EARLY.to_owned()),
            _ => words::fault(cause, " before the answer was complete"),
        };
    }
    ProbeError::Failed(if error.is_parse_too_large() {
        HEAD_TOO_LONG.to_owned()
    } else if error.is_parse() {
        "the answer is not HTTP".to_owned()
    } else if error.is_canceled() && error.source().is_some() {
        // Bytes were there before the request was sent.
        "the answer is not HTTP: the backend speaks before it is asked".to_owned()
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        ENDED_EARLY.to_owned()
    } else {
        format!("the answer is not HTTP: {error}")
    })
}

fn socket_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_name_or_the_address_with_its_port() {
        let at = |text: &str| Address::Inet(text.parse().expect("an address"));
        for (address, name, tls, expected) in [
            (at("10.0.0.1:8008"), None, false, "10.0.0.1:8008"),
            (at("10.0.0.1:80"), None, false, "10.0.0.1"),
            (at("10.0.0.1:80"), None, true, "10.0.0.1:80"),
            (at("10.0.0.1:443"), None, true, "10.0.0.1"),
            (at("[fe80::1%3]:8008"), None, false, "[fe80::1]:8008"),
            (at("10.0.0.1:8008"), Some("db.example"), false, "db.example:8008"),
            (at("10.0.0.1:443"), Some("db.example"), true, "db.example"),
            (Address::Unix("/run/x.sock".into()), None, false, "localhost"),
        ] {
            assert_eq!(default_host(&address, name, tls), expected);
        }
    }

    #[test]
    fn ranges_are_told_as_they_are_written() {
        assert_eq!(expected(&[(200, 399)]), "200-399");
        assert_eq!(expected(&[(200, 204), (404, 404)]), "200-204, 404");
    }
}
