//! TLS for tests: an authority made on the fly, certificates that it signs, servers that tell who they are, a client.
//!
//! The library is rustls with graviola, which offers X25519MLKEM768 first, so that hellos are as long as today's browsers
//! send them.

use crate::address::Address;
use crate::backend::listen;
use crate::program::Dir;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, NamedGroup, RootCertStore, ServerConfig};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

/// Signs certificates of one test, and is trusted by nobody else.
pub struct Authority {
    /// Its certificate, as a file for programs.
    pub file: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    dir: Dir,
}

/// A certificate with its key, as files for programs; they go with the authority.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the system gives random numbers");
        let certificate = params.self_signed(&key).expect("a key signs");
        let dir = Dir::new();
        Self {
            file: dir.write("authority.pem", &certificate.pem()),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            dir,
        }
    }

    /// A certificate for these names, valid for longer than the test.
    pub fn sign(&self, names: &[&str]) -> Identity {
        let owned = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(owned).expect("names of hosts");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(4000, 1, 1);
        let key = KeyPair::generate().expect("the system gives random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs");
        let file = names[0].replace('*', "any");
        Identity {
            certificate: self.dir.write(&format!("{file}.pem"), &certificate.pem()),
            key: self.dir.write(&format!("{file}.key"), &key.serialize_pem()),
        }
    }

    /// A client that trusts only this authority and offers these protocols.
    pub fn client(&self, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("it is a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols(alpn);
        Arc::new(config).into()
    }
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// What one request over TLS told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the server said: its name and the name that it was asked for.
    pub body: String,
    /// The group of the key exchange.
    pub group: Option<NamedGroup>,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
}

/// Connects, verifies the server's certificate for `name`, asks.
///
/// # Errors
/// Of the connection, of TLS (a certificate that does not fit included), or no HTTP answer.
pub async fn ask(client: &TlsConnector, at: &Address, name: &str) -> io::Result<Answer> {
    let Address::Inet(at) = at else {
        return Err(ErrorKind::Unsupported.into());
    };
    ask_over(client, TcpStream::connect(at).await?, name).await
}

/// The same over a connection that stands.
///
/// # Errors
/// As [`ask`]'s.
pub async fn ask_over(client: &TlsConnector, stream: TcpStream, name: &str) -> io::Result<Answer> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut stream = client.connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("no HTTP: {answer}")))?;
    let connection = stream.get_ref().1;
    Ok(Answer {
        body: body.to_owned(),
        group: connection.negotiated_key_exchange_group().map(|group| group.name()),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
    })
}

/// What arrived at a server of this file.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Connections.
    pub connections: AtomicU64,
    /// Bytes over all of them, as TCP carried them; [`Witness`] only.
    pub bytes: AtomicU64,
}

/// A thread that serves until it is dropped.
struct Serving {
    address: Address,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Serves each connection with what `serve` makes of it.
    fn start<F>(arrived: Arc<Arrived>, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), 4096, None).expect("a port is free");
        let address = Address::Inet(listener.local_addr().expect("it is bound"));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                            arrived.connections.fetch_add(1, SeqCst);
                            tokio::spawn(serve(stream));
                        },
                    }
                }
            });
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; a second one while dropping would abort.
            let _ = thread.join();
        }
    }
}

/// A server that terminates TLS and answers every request with `NAME saw SERVER_NAME`.
pub struct TlsServer {
    /// Where it listens.
    pub address: Address,
    /// What it saw.
    pub arrived: Arc<Arrived>,
    _serving: Serving,
}

impl TlsServer {
    /// On 127.0.0.1, with this certificate; it speaks these protocols.
    pub fn start(name: &'static str, identity: &Identity, alpn: &[&str]) -> Self {
        let certificate = CertificateDer::from_pem_file(&identity.certificate).expect("rcgen wrote it");
        let key = PrivateKeyDer::from_pem_file(&identity.key).expect("rcgen wrote it");
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows both versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key fits");
        config.alpn_protocols = protocols(alpn);
        let (config, arrived) = (Arc::new(config), Arc::new(Arrived::default()));
        let serving = Serving::start(arrived.clone(), move |stream| {
            let config = config.clone();
            async move {
                // A client that does not like the certificate ends the handshake; it tells its test.
                let _ = serve(name, stream, config).await;
            }
        });
        Self {
            address: serving.address.clone(),
            arrived,
            _serving: serving,
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.arrived.connections.load(SeqCst)
    }
}

async fn serve(name: &str, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let asked = hello.client_hello().server_name().unwrap_or("nothing").to_owned();
    let mut stream = hello.into_stream(config).await?;
    answer_http(&mut stream, &format!("{name} saw {asked}")).await
}

async fn answer_http(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), body: &str) -> io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// A backend that only looks at what arrives: it counts every byte, reads the hello with rustls, and answers with one
/// line in the clear: `NAME SERVER_NAME`, with `-` for a hello without one and `!` for what rustls does not read.
pub struct Witness {
    /// Where it listens.
    pub address: Address,
    arrived: Arc<Arrived>,
    _serving: Serving,
}

impl Witness {
    /// On 127.0.0.1.
    pub fn start(name: &'static str) -> Self {
        let arrived = Arc::new(Arrived::default());
        let counts = arrived.clone();
        let serving = Serving::start(arrived.clone(), move |stream| {
            let counts = counts.clone();
            async move {
                // The client has gone; it tells its test.
                let _ = testify(name, stream, &counts.bytes).await;
            }
        });
        Self {
            address: serving.address.clone(),
            arrived,
            _serving: serving,
        }
    }

    /// Connections and bytes so far.
    pub fn arrived(&self) -> (u64, u64) {
        (self.arrived.connections.load(SeqCst), self.arrived.bytes.load(SeqCst))
    }
}

async fn testify(name: &str, mut stream: TcpStream, bytes: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut acceptor, mut told, mut buffer) = (Acceptor::default(), false, vec![0; 16 * 1024]);
    loop {
        let n = stream.read(&mut buffer).await?;
        bytes.fetch_add(n as u64, SeqCst);
        if n == 0 {
            return stream.shutdown().await;
        }
        let mut left = &buffer[..n];
        while !told && !left.is_empty() {
            let seen = match acceptor.read_tls(&mut left).map(|_| acceptor.accept()) {
                Ok(Ok(None)) => continue,
                Ok(Ok(Some(accepted))) => accepted.client_hello().server_name().unwrap_or("-").to_owned(),
                Ok(Err(_)) | Err(_) => "!".to_owned(),
            };
            stream.write_all(format!("{name} {seen}\n").as_bytes()).await?;
            told = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::run;
    use crate::hello::{Hello, in_records};
    use crate::wire::{Dial, End};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_server_proves_its_name_over_a_hybrid_key_exchange() {
        let (authority, other) = (Authority::new(), Authority::new());
        let server = TlsServer::start("a", &authority.sign(&["a.example.com"]), &["two", "one"]);
        run(None, async {
            let answer = ask(&authority.client(&["one"]), &server.address, "a.example.com").await;
            let expected = Answer {
                body: "a saw a.example.com".to_owned(),
                group: Some(NamedGroup::X25519MLKEM768),
                alpn: Some(b"one".to_vec()),
            };
            assert_eq!(answer.expect("the certificate fits"), expected);
            for (client, name) in [(&authority, "b.example.com"), (&other, "a.example.com")] {
                let answer = ask(&client.client(&[]), &server.address, name).await;
                assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::InvalidData));
            }
        });
        assert_eq!(server.connections(), 3);
    }

    #[test]
    fn a_witness_counts_and_tells_names() {
        let witness = Witness::start("w");
        let hello = Hello::to("a.example.com");
        let (whole, pieces) = (hello.bytes(), in_records(&hello.message(), 1));
        let mut sent = 0;
        for (bytes, line) in [
            (&whole, "w a.example.com"),
            (&pieces, "w a.example.com"),
            (&Hello::nameless().bytes(), "w -"),
            (&b"GET / HTTP/1.0\r\n\r\n".to_vec(), "w !"),
        ] {
            run(None, async {
                let mut wire = Dial::to(&witness.address).connect().await.expect("it listens");
                wire.write_all(bytes).await.expect("it reads");
                assert_eq!(wire.line(SOON).await.expect("a line"), line);
                wire.shutdown().await.expect("it reads");
                assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Orderly));
            });
            sent += bytes.len() as u64;
        }
        assert_eq!(witness.arrived(), (4, sent));
    }
}
