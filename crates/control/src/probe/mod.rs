//! Active probes: one question to one backend, and whether the answer is well.
//!
//! Owns the connection of a probe from connecting to closing. Never decides what follows from an answer
//! (`ringway_core::health` does), never starts a probe by itself, never writes a log line, remembers nothing from one
//! probe to the next. Called by what schedules the probes of a pool.

mod connection;
mod datagram;
mod exchange;
mod http;
mod limit;
mod tls;
mod words;

use connection::Connection;
use datagram::Datagram;
use exchange::Exchange;
use http::Http;
use limit::Limit;
use ringway_core::model::{Address, HealthCheck, Probe, ProxyVersion, SendProxy};
use ringway_wire::proxy::{Outgoing, Transport, Version};
use std::time::Duration;
use tls::Tls;

/// The probes of one pool, prepared once: TLS configuration, request, what is expected.
#[derive(Debug)]
pub struct Prober {
    question: Question,
    /// A PROXY header of our own: backends that are told who their clients are expect one of everybody.
    header: Vec<u8>,
    port: Option<u16>,
    timeout: Duration,
}

/// Why a probe did not pass. The words are printable and at most [`WORDS_MAX`] bytes long, whatever the backend sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// Counts against the backend: "connection refused", "HTTP status 503, expected 200-399".
    Failed(String),
    /// Never counts against the backend: this machine lacked descriptors, ports or memory.
    Local(String),
}

/// Bytes of what is said about one probe.
pub const WORDS_MAX: usize = 200;

#[derive(Debug)]
enum Question {
    Tcp,
    Tls(Tls),
    Exchange { exchange: Exchange, tls: Option<Tls> },
    Http { http: Http, tls: Option<Tls> },
    Datagram(Datagram),
}

impl Prober {
    /// Prepares the probes of a pool. The error is a whole sentence, of a file of authorities that cannot be used, or of
    /// a request that cannot be sent.
    ///
    /// `send_proxy` is the pool's: a probe begins with a header that says that it is nobody's connection (LOCAL; UNKNOWN in
    /// version 1), unless it asks another port than the backend's.
    pub fn new(check: &HealthCheck, send_proxy: Option<SendProxy>) -> Result<Self, String> {
        let is_datagram = matches!(check.probe, Probe::Datagram(_));
        let header = send_proxy.map_or_else(Vec::new, |send| header(send, is_datagram));
        let question = match &check.probe {
            Probe::Tcp => Question::Tcp,
            Probe::Tls(tls) => Question::Tls(Tls::new(tls, &[])?),
            Probe::Exchange(exchange) => Question::Exchange {
                exchange: Exchange::new(exchange),
                tls: exchange.tls.as_ref().map(|tls| Tls::new(tls, &[])).transpose()?,
            },
            Probe::Datagram(probe) => Question::Datagram(Datagram::new(probe)),
            Probe::Http(probe) => Question::Http {
                http: Http::new(probe)?,
                tls: probe.tls.as_ref().map(|tls| Tls::new(tls, &[http::ALPN])).transpose()?,
            },
        };
        Ok(Self {
            question,
            header,
            port: check.port,
            timeout: check.timeout,
        })
    }

    /// Asks the backend at `address` once, within the timeout of the check in all; `name` is its DNS name, if it has
    /// one. Says in a few words what was seen: "HTTP status 200 in 1.2 ms". Dropping the future closes the connection.
    /// Must be called inside a tokio runtime with timers and sockets.
    pub async fn run(&self, address: &Address, name: Option<&str>) -> Result<String, ProbeError> {
        let asked = self.asked_at(address);
        // Another port is another server, perhaps.
        let header = if asked == *address { &self.header[..] } else { &[] };
        match self.ask((&asked, name), header).await {
            Ok(seen) => Ok(words::printable(&seen)),
            Err(ProbeError::Failed(why)) => Err(ProbeError::Failed(words::printable(&why))),
            Err(ProbeError::Local(why)) => Err(ProbeError::Local(words::printable(&why))),
        }
    }

    /// Paths of UNIX sockets have no port that could be replaced.
    fn asked_at(&self, address: &Address) -> Address {
        let mut address = address.clone();
        if let (Address::Inet(inet), Some(port)) = (&mut address, self.port) {
            inet.set_port(port);
        }
        address
    }

    /// In every arm the verdict is out before closing begins: a backend that is slow to close passes all the same.
    async fn ask(&self, (address, name): (&Address, Option<&str>), header: &[u8]) -> Result<String, ProbeError> {
        let limit = Limit::start(self.timeout);
        if let Question::Datagram(datagram) = &self.question {
            return datagram.run(address, header, &limit).await;
        }
        let mut plain = limit.within(" while connecting", connection::connect(address)).await?;
        if !header.is_empty() {
            let sent = connection::send(&mut plain, header);
            limit.within(" while the PROXY header was sent", sent).await?;
        }
        match &self.question {
            Question::Datagram(_) => unreachable!("asked without a connection, above"),
            Question::Tcp => {
                let seen = format!("connected {}", limit.elapsed());
                let verdict = connection::hold(&mut plain, &limit).await;
                connection::close(plain, &limit).await;
                verdict.map(|()| seen)
            }
            Question::Tls(tls) => {
                let secured = secure(Some(tls), plain, address, name, &limit).await?;
                let seen = format!("TLS handshake {}", limit.elapsed());
                connection::close(secured, &limit).await;
                Ok(seen)
            }
            Question::Exchange { exchange, tls } => {
                let mut connection = secure(tls.as_ref(), plain, address, name, &limit).await?;
                let verdict = exchange.run(&mut connection, &limit).await;
                connection::close(connection, &limit).await;
                verdict
            }
            Question::Http { http, tls } => {
                let connection = secure(tls.as_ref(), plain, address, name, &limit).await?;
                let host = http::default_host(address, name, tls.is_some());
                http.run(connection, &host, &limit).await
            }
        }
    }
}

fn header(send: SendProxy, is_datagram: bool) -> Vec<u8> {
    let outgoing = Outgoing {
        version: match send.version {
            ProxyVersion::V1 => Version::V1,
            ProxyVersion::V2 => Version::V2,
        },
        source: None,
        destination: None,
        transport: if is_datagram {
            Transport::Datagram
        } else {
            Transport::Stream
        },
        local: true,
        authority: None,
        alpn: None,
        unique_id: None,
        checksum: send.checksum,
    };
    let mut header = Vec::new();
    outgoing.write(&mut header);
    header
}

async fn secure(
    tls: Option<&Tls>,
    connection: Box<dyn Connection>,
    address: &Address,
    name: Option<&str>,
    limit: &Limit,
) -> Result<Box<dyn Connection>, ProbeError> {
    match tls {
        Some(tls) => {
            limit
                .within(" in the TLS handshake", tls.handshake(connection, address, name))
                .await
        }
        None => Ok(connection),
    }
}
