//! Where a TLS client goes: by the name and the protocols in its hello.

use super::peek::Peek;
use super::routing::Said;
use ringway_core::model::{PoolIndex, Tls};
use ringway_core::reason::EndReason;
use ringway_wire::hello::{ClientHello, HelloError, Reader, ServerName};

/// Reads a hello and finds its route. What was read is passed on as it came.
pub(super) async fn read(
    tls: &Tls,
    fallback: Option<PoolIndex>,
    peek: &mut Peek<'_>,
    said: &mut Said,
) -> Result<PoolIndex, EndReason> {
    let mut reader = Reader::new(tls.hello_max);
    loop {
        match reader.read(peek.bytes()) {
            Ok(Some(hello)) => return find(tls, fallback, &hello, said).ok_or(EndReason::NoRoute),
            Ok(None) => {}
            Err(error) => return Err(reason(error)),
        }
        peek.more().await?;
    }
}

fn find(tls: &Tls, fallback: Option<PoolIndex>, hello: &ClientHello<'_>, said: &mut Said) -> Option<PoolIndex> {
    let name = match hello.server_name() {
        ServerName::Host(name) => Some(name),
        // Names no host (RFC 6066, section 3).
        ServerName::Absent | ServerName::Address => None,
    };
    said.alpn = hello.alpn().next().map(Box::from);
    let pool = tls.routes.find(name.as_deref(), hello.alpn());
    said.server_name = name.map(|name| name.into_owned().into_boxed_str());
    pool.or(fallback)
}

const fn reason(error: HelloError) -> EndReason {
    match error {
        HelloError::TooLarge => EndReason::HelloTooLarge,
        HelloError::NotTls
        | HelloError::Sslv2
        | HelloError::BadRecord
        | HelloError::NotClientHello
        | HelloError::Malformed
        | HelloError::BadName => EndReason::BadHello,
    }
}
