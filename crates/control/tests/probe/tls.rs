//! Probes over TLS.

use super::http::{answer, http};
use super::peers::{
    Scratch, ask, ask_named, assert_passed, backend, check, check_within, failed, fails_after, heard, say, stay_silent,
    told, until_the_end,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use ringway_control::probe::Prober;
use ringway_core::model::{Address, HealthCheck, Probe, ProbeExchange, ProbeHttp, ProbeTls};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::fs;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// An authority, as a file and as what signs.
struct Authority {
    file: Scratch,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::called("authority")
    }

    fn called(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let file = Scratch::new("pem");
        fs::write(&file.0, params.self_signed(&key).expect("signs").pem()).expect("writes");
        Self {
            file,
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, names: &[&str]) -> Identity {
        self.sign_until(names, 4000)
    }

    fn sign_until(&self, names: &[&str], year: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        Identity(certificate.der().clone(), key)
    }

    fn verified_as(&self, server_name: Option<&str>) -> ProbeTls {
        ProbeTls {
            server_name: server_name.map(Into::into),
            verify: true,
            authorities: Some(self.file.0.clone()),
        }
    }
}

struct Identity(CertificateDer<'static>, KeyPair);

impl Identity {
    fn acceptor(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.1.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.0.clone()], key)
            .expect("an identity");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn tls_backend<F>(
    acceptor: TlsAcceptor,
    handler: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> Address
where
    F: Future<Output = ()> + Send + 'static,
{
    let accept = move |stream| {
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                handler(stream).await;
            }
        }
    };
    backend(accept).await
}

/// The server name that was sent, and how the connection ended.
type Seen = (Option<String>, Result<Vec<u8>, String>);

async fn watching(acceptor: TlsAcceptor) -> (Address, UnboundedReceiver<Seen>) {
    let (tell, seen) = told();
    let address = tls_backend(acceptor, move |mut stream| {
        let tell = tell.clone();
        async move {
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            drop(tell.send((name, until_the_end(&mut stream).await)));
        }
    });
    (address.await, seen)
}

fn tls(probe: ProbeTls) -> HealthCheck {
    check(Probe::Tls(probe))
}

#[tokio::test]
async fn a_handshake_passes_and_ends_in_order_whatever_the_certificate() {
    for versions in [BOTH, &BOTH[..1], &BOTH[1..]] {
        let acceptor = Authority::new()
            .sign_until(&["other.example"], 2001)
            .acceptor(versions, &[]);
        let (address, mut seen) = watching(acceptor).await;
        assert_passed(&ask(&tls(ProbeTls::default()), &address).await, "TLS handshake in ");
        // Without the end that TLS has of its own this would be an error.
        assert_eq!(heard(&mut seen).await, (None, Ok(vec![])));
    }
}

#[tokio::test]
async fn the_name_is_sent_if_there_is_one() {
    let (address, mut seen) = watching(Authority::new().sign(&["db.example"]).acceptor(BOTH, &[])).await;
    let named = ProbeTls {
        server_name: Some("check.example".into()),
        ..ProbeTls::default()
    };
    for (probe, own, expected) in [
        (ProbeTls::default(), None, None),
        (ProbeTls::default(), Some("db.example"), Some("db.example")),
        (named.clone(), None, Some("check.example")),
        (named, Some("db.example"), Some("check.example")),
    ] {
        assert_passed(&ask_named(&tls(probe), &address, own).await, "TLS handshake in ");
        assert_eq!(heard(&mut seen).await.0.as_deref(), expected);
    }
}

#[tokio::test]
async fn verified_certificates_must_be_valid_for_the_name() {
    let authority = Authority::new();
    let acceptor = authority.sign(&["db.example", "127.0.0.1"]).acceptor(BOTH, &[]);
    let (address, _seen) = watching(acceptor).await;
    for (configured, own) in [(Some("db.example"), None), (None, Some("db.example")), (None, None)] {
        let check = tls(authority.verified_as(configured));
        assert_passed(&ask_named(&check, &address, own).await, "TLS handshake in ");
    }
    assert_eq!(
        ask(&tls(authority.verified_as(Some("web.example"))), &address).await,
        failed("TLS: the certificate is not valid for web.example")
    );
    let (named_only, _seen) = watching(authority.sign(&["db.example"]).acceptor(BOTH, &[])).await;
    assert_eq!(
        ask(&tls(authority.verified_as(None)), &named_only).await,
        failed("TLS: the certificate is not valid for 127.0.0.1")
    );
}

#[tokio::test]
async fn verified_certificates_must_be_of_a_trusted_authority_and_of_today() {
    let authority = Authority::called("trusted");
    let check = tls(authority.verified_as(Some("db.example")));
    for other in [Authority::called("unknown"), Authority::called("trusted")] {
        let (address, _seen) = watching(other.sign(&["db.example"]).acceptor(BOTH, &[])).await;
        assert_eq!(
            ask(&check, &address).await,
            failed("TLS: the certificate is not signed by a trusted authority")
        );
    }
    let (expired, _seen) = watching(authority.sign_until(&["db.example"], 2001).acceptor(BOTH, &[])).await;
    assert_eq!(ask(&check, &expired).await, failed("TLS: the certificate has expired"));
}

#[tokio::test]
async fn the_authorities_of_the_system_know_nothing_of_ours() {
    let check = tls(ProbeTls {
        server_name: Some("db.example".into()),
        verify: true,
        authorities: None,
    });
    // A system may have none at all.
    if let Err(why) = Prober::new(&check, None) {
        assert!(why.starts_with("this system has no certificate authorities"), "{why}");
        return;
    }
    let (address, _seen) = watching(Authority::new().sign(&["db.example"]).acceptor(BOTH, &[])).await;
    assert_eq!(
        ask(&check, &address).await,
        failed("TLS: the certificate is not signed by a trusted authority")
    );
}

#[test]
fn files_of_authorities_that_cannot_be_used_are_told_beforehand() {
    let refused = |content: Option<&str>| {
        let file = Scratch::new("pem");
        if let Some(content) = content {
            fs::write(&file.0, content).expect("writes");
        }
        let check = tls(ProbeTls {
            authorities: Some(file.0.clone()),
            verify: true,
            server_name: None,
        });
        let why = Prober::new(&check, None).expect_err("cannot be");
        why.strip_prefix(&format!("the file of authorities {} ", file.0.display()))
            .unwrap_or_else(|| panic!("{why}"))
            .to_owned()
    };
    assert!(refused(None).starts_with("cannot be read: "));
    assert_eq!(
        refused(Some("nothing")),
        "holds no certificate; they begin with -----BEGIN CERTIFICATE-----"
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(refused(Some(broken)).starts_with("holds a certificate that cannot be used: "));
    assert!(refused(Some("-----BEGIN CERTIFICATE-----\nAAAA\n")).starts_with("cannot be read: "));
}

#[test]
fn names_that_cannot_be_sent_are_told_beforehand() {
    let check = tls(ProbeTls {
        server_name: Some("a b".into()),
        ..ProbeTls::default()
    });
    assert_eq!(
        Prober::new(&check, None).expect_err("cannot be"),
        "\"a b\" cannot be sent as a TLS server name; write a DNS name or an IP address"
    );
}

#[tokio::test]
async fn what_is_no_tls_fails() {
    let check = tls(ProbeTls::default());
    let speaks_http = backend(|mut stream| async move {
        drop(stream.read(&mut [0; 1000]).await);
        say(stream, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    });
    assert_eq!(ask(&check, &speaks_http.await).await, failed("the answer is not TLS"));
    let ends = backend(|mut stream| async move { drop(stream.read(&mut [0; 1000]).await) });
    let result = ask(&check, &ends.await).await;
    // The rest of the hello is still unread when the backend ends: the kernel may make it a reset.
    assert!(
        result == failed("ended by the backend in the TLS handshake")
            || result == failed("reset by the backend in the TLS handshake"),
        "{result:?}"
    );
    let silent = backend(stay_silent).await;
    let check = check_within(Probe::Tls(ProbeTls::default()), 300);
    fails_after(300, &check, &silent, "no answer within 300ms in the TLS handshake").await;
}

#[tokio::test]
async fn bytes_are_exchanged_over_tls() {
    let acceptor = Authority::new().sign(&["db.example"]).acceptor(BOTH, &[]);
    let (tell, mut ends) = told();
    let address = tls_backend(acceptor, move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut question = [0; 6];
            stream.read_exact(&mut question).await.expect("is asked");
            stream.write_all(b"+PONG\r\n").await.expect("answers");
            drop(tell.send((question, until_the_end(&mut stream).await)));
        }
    });
    let address = address.await;
    let exchange = |expect: &str| {
        check(Probe::Exchange(ProbeExchange {
            send: b"PING\r\n".as_slice().into(),
            expect: expect.as_bytes().into(),
            tls: Some(ProbeTls::default()),
        }))
    };
    assert_passed(&ask(&exchange("+PONG"), &address).await, "expected answer in ");
    assert_eq!(heard(&mut ends).await, (*b"PING\r\n", Ok(vec![])));
}

#[tokio::test]
async fn an_end_over_tls_without_the_end_of_tls_is_an_end() {
    let acceptor = Authority::new().sign(&["db.example"]).acceptor(BOTH, &[]);
    let address = tls_backend(acceptor, |mut stream| async move {
        stream.read_exact(&mut [0; 6]).await.expect("is asked");
        stream.write_all(b"-ERR\r\n").await.expect("answers");
        stream.flush().await.expect("sends");
        let (mut plain, _) = stream.into_inner();
        drop(plain.shutdown().await);
        stay_silent(plain).await;
    });
    let exchange = check(Probe::Exchange(ProbeExchange {
        send: b"PING\r\n".as_slice().into(),
        expect: b"+PONG".as_slice().into(),
        tls: Some(ProbeTls::default()),
    }));
    assert_eq!(
        ask(&exchange, &address.await).await,
        failed(r#"the answer, "-ERR\r\n", does not contain "+PONG""#)
    );
}

#[tokio::test]
async fn https_is_http_over_tls() {
    let authority = Authority::new();
    let acceptor = authority.sign(&["web.example"]).acceptor(BOTH, &["h2", "http/1.1"]);
    let (tell, mut seen) = told();
    let address = tls_backend(acceptor, move |stream| {
        let tell = tell.clone();
        async move {
            let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready".to_vec();
            drop(tell.send((protocol, answer(stream, ok).await)));
        }
    });
    let address = address.await;
    let https = |tls: ProbeTls, text: &str| {
        check(Probe::Http(ProbeHttp {
            body: Some(text.into()),
            tls: Some(tls),
            ..http()
        }))
    };
    for tls in [ProbeTls::default(), authority.verified_as(Some("web.example"))] {
        assert_passed(&ask(&https(tls, "ready"), &address).await, "HTTP status 200 in ");
        let (protocol, head) = heard(&mut seen).await;
        assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
        assert!(
            head.starts_with(&format!("GET / HTTP/1.1\r\nHost: {address}\r\n")),
            "{head}"
        );
    }
    assert_eq!(
        ask(&https(ProbeTls::default(), "rotten"), &address).await,
        failed("HTTP status 200, but the body does not contain \"rotten\"")
    );
    assert_eq!(
        ask(&https(authority.verified_as(Some("db.example")), "ready"), &address).await,
        failed("TLS: the certificate is not valid for db.example")
    );
}

#[tokio::test]
async fn a_backend_that_refuses_the_handshake_fails() {
    let acceptor = Authority::new().sign(&["web.example"]).acceptor(BOTH, &["h2"]);
    let (address, _seen) = watching(acceptor).await;
    let https = check(Probe::Http(ProbeHttp {
        tls: Some(ProbeTls::default()),
        ..http()
    }));
    // RFC 7301, section 3.2: no_application_protocol.
    assert_eq!(
        ask(&https, &address).await,
        failed("TLS: the backend refuses the handshake (NoApplicationProtocol)")
    );
}
