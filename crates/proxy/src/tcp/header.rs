//! PROXY headers: read from a balancer in front, written for backends.

use super::peek::Peek;
use super::routing::Said;
use ringway_core::model::{ProxyProtocol, ProxyVersion, SendProxy};
use ringway_core::reason::EndReason;
use ringway_runtime::faults::{Fault, active};
use ringway_wire::proxy::{self, Accept, Addresses, Outgoing, Version};
use std::net::SocketAddr;

/// The longest header that is taken, bytes. The protocol allows four times that; what balancers send is below 1 KiB, client
/// certificates below 4 KiB.
const HEADER_MAX: usize = 16 << 10;

/// Reads the header and takes it away. Returns who the client is and whom it spoke to; `None`: the header does not say,
/// and the other end is the client (as for probes of the balancer itself).
pub(super) async fn read(
    accepted: &ProxyProtocol,
    peek: &mut Peek<'_>,
) -> Result<Option<(SocketAddr, SocketAddr)>, EndReason> {
    let accept = Accept {
        v1: accepted.v1,
        v2: accepted.v2,
    };
    loop {
        match proxy::read(peek.bytes(), accept, HEADER_MAX) {
            Ok(Some(header)) => {
                let addresses = match header.addresses {
                    Addresses::Tcp { source, destination } => Some((source, destination)),
                    Addresses::Unknown | Addresses::Udp { .. } | Addresses::Unix { .. } => None,
                };
                let len = header.len;
                peek.skip(if active(Fault::HeaderPassedOn) { 0 } else { len });
                return Ok(addresses);
            }
            Ok(None) => {}
            Err(_) => return Err(EndReason::BadProxyHeader),
        }
        peek.more().await?;
    }
}

/// The header for a backend.
pub(super) fn write(send: SendProxy, addresses: Option<(SocketAddr, SocketAddr)>, said: &Said, id: &[u8]) -> Vec<u8> {
    let outgoing = Outgoing {
        version: match send.version {
            ProxyVersion::V1 => Version::V1,
            ProxyVersion::V2 => Version::V2,
        },
        transport: proxy::Transport::Stream,
        local: false,
        source: addresses.map(|(source, _)| source),
        destination: addresses.map(|(_, destination)| destination),
        authority: said
            .server_name
            .as_deref()
            .filter(|_| send.authority)
            .map(str::as_bytes),
        alpn: said.alpn.as_deref().filter(|_| send.alpn),
        unique_id: send.unique_id.then_some(id),
        checksum: send.checksum,
    };
    let mut header = Vec::new();
    outgoing.write(&mut header);
    header
}
