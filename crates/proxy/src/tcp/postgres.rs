//! How a PostgreSQL connection begins: asking for TLS, cancelling a query of another connection, or at once.

use super::hello;
use super::peek::Peek;
use super::routing::{Said, StartsTls, Target};
use crate::session::Session;
use ringway_core::model::{PoolIndex, Tls};
use ringway_core::reason::EndReason;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{SendOutcome, Stream};
use ringway_wire::postgres::{CancelKey, Startup, read_startup};

/// Reads the first message of a client. Returns what it is and its length; it is not taken away.
async fn first_message(peek: &mut Peek<'_>) -> Result<(Startup, usize), EndReason> {
    loop {
        match read_startup(peek.bytes()) {
            // Half a message would keep a server waiting in our client's place.
            Ok(Some((Startup::Startup { len }, _))) if peek.bytes().len() < len as usize => {}
            Ok(Some(first)) => return Ok(first),
            Ok(None) => {}
            Err(_) => return Err(EndReason::BadStartup),
        }
        peek.more().await?;
    }
}

/// Where a client of a listener with `starttls: postgres` goes: by its hello, once it may speak TLS.
pub(super) async fn start_tls(
    (client, tls, fallback): (&Stream, &Tls, Option<PoolIndex>),
    peek: &mut Peek<'_>,
    said: &mut Said,
) -> Result<Target, EndReason> {
    loop {
        let (first, len) = first_message(peek).await?;
        match first {
            Startup::DirectTls => {
                return Ok(Target::Pool(
                    hello::read(tls, fallback, peek, said).await?,
                    StartsTls::No,
                ));
            }
            Startup::SslRequest | Startup::GssEncRequest => {
                // What follows must be the answer's: bytes that came without it may be somebody else's (CVE-2021-23222).
                if peek.bytes().len() > len && !active(Fault::BytesBehindRequestTaken) {
                    return Err(EndReason::BadStartup);
                }
                peek.skip(len);
                if matches!(first, Startup::GssEncRequest) {
                    // Others are not routed: the client asks for TLS next.
                    say(client, b"N").await?;
                    continue;
                }
                say(client, b"S").await?;
                let pool = hello::read(tls, fallback, peek, said).await?;
                return Ok(Target::Pool(pool, StartsTls::Yes));
            }
            Startup::Cancel(_) => return Ok(Target::CancelAtAll(peek.bytes()[..len].into())),
            // Without TLS there is no name.
            Startup::Startup { .. } => {
                let pool = fallback.ok_or(EndReason::NoRoute)?;
                return Ok(Target::Pool(pool, StartsTls::No));
            }
        }
    }
}

/// Where a client of a listener with `protocol_hint: postgres` goes: to the pool's choice, unless it cancels a query.
pub(super) async fn start(session: &Session, pool: PoolIndex, peek: &mut Peek<'_>) -> Result<Target, EndReason> {
    let (first, _) = first_message(peek).await?;
    let Startup::Cancel(key) = first else {
        return Ok(Target::Pool(pool, StartsTls::No));
    };
    let request = request_of(&key);
    let keys = session.worker().cancel_keys(session.listener());
    let issuer = keys.and_then(|keys| keys.issuer(&request));
    Ok(match issuer.filter(|_| !active(Fault::CancelToAnybody)) {
        Some(backend) => Target::Backend(pool, backend),
        // Another balancer in front of the same servers may have seen it.
        None => Target::CancelAtAll(request.into()),
    })
}

/// What a key is known by: the request that cancels with it.
pub(super) fn request_of(key: &CancelKey) -> Vec<u8> {
    let mut request = Vec::new();
    key.write_request(&mut request);
    request
}

async fn say(client: &Stream, answer: &'static [u8]) -> Result<(), EndReason> {
    match client.send_bytes(answer.into(), 0, true).await {
        SendOutcome::All => Ok(()),
        // Nothing was sent to it before: there is room unless it is gone.
        SendOutcome::Full(_) | SendOutcome::Failed(..) => Err(EndReason::ClientReset),
    }
}
