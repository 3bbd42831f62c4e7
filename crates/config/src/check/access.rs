//! Who may use a listener: lists that contradict themselves or each other, and bounds that bound nothing.

use super::udp::{self, written};
use crate::problem::Problems;
use crate::raw::{self, Field};
use crate::source::{At, Span};
use ringway_core::access::{Access, Network, NetworkSet};
use ringway_core::model::{Address, Protocol};
use ringway_core::session::ClientLimits;
use std::collections::HashMap;

/// A burst after a pause is a tenth of what is allowed in a second or minute.
const BURST_PART: u32 = 10;

/// Keys that have no effect, wholly or in part.
pub(super) fn check(listener: &raw::Listener, problems: &mut Problems) {
    let access = &listener.access;
    let allow = networks("allow", &access.allow, problems);
    networks("deny", &access.deny, problems);
    // A balancer in front may say who they are.
    if unix_only(listener) && listener.preface.proxy_protocol.is_absent() {
        no_addresses(access, problems);
        return;
    }
    // What could not be read may be what would make the difference.
    if !access.allow.is_unusable() && !access.deny.is_unusable() {
        contradictions(access.allow.value.as_ref().map(|_| &allow), &access.deny, problems);
    }
    if let (Some(key), Some(each), Some(all)) = (
        written(&access.max_connections_per_client),
        &access.max_connections_per_client.value,
        &listener.max_connections.value,
    ) && each.value >= all.value
    {
        problems.warning(
            key,
            "max_connections_per_client has no effect",
            format!("max_connections allows {} of all clients together", all.value),
        );
    }
}

/// Each with its place; one that is there twice is reported.
fn networks(key: &str, field: &Field<Vec<At<Network>>>, problems: &mut Problems) -> HashMap<Network, Span> {
    let mut first = HashMap::new();
    for &At { value: network, span } in list(field) {
        let before = *first.entry(network).or_insert(span);
        if before != span {
            let message = format!("{key} has {network} twice");
            problems.error_with_note(span, message, "remove one", (before, "it is here first"));
        }
    }
    first
}

fn list(field: &Field<Vec<At<Network>>>) -> impl Iterator<Item = &At<Network>> {
    field.value.iter().flat_map(|at| &at.value)
}

fn unix_only(listener: &raw::Listener) -> bool {
    let mut binds = listener.bind.value.iter().flat_map(|at| &at.value).peekable();
    // Of UDP it was said that it cannot listen there.
    listener.protocol.or(Protocol::Tcp) != Protocol::Udp
        && binds.peek().is_some()
        && binds.all(|bind| matches!(bind.value, Address::Unix(_)))
}

fn no_addresses(access: &raw::Access, problems: &mut Problems) {
    for (key, at) in [
        ("allow", written(&access.allow)),
        ("deny", written(&access.deny)),
        (
            "max_connections_per_client",
            written(&access.max_connections_per_client),
        ),
        ("connection_rate", written(&access.connection_rate)),
    ] {
        if let Some(at) = at {
            let help = "remove it: clients have no addresses there, the rights of the path say who may connect";
            problems.error(at, format!("{key} has no effect on UNIX sockets"), help);
        }
    }
}

/// Networks of either list that the other one leaves without effect.
fn contradictions(allow: Option<&HashMap<Network, Span>>, deny: &Field<Vec<At<Network>>>, problems: &mut Problems) {
    let Some(allow) = allow else {
        for at in list(deny).filter(|at| at.value.prefix() == 0) {
            let message = format!("deny {} lets nobody in", at.value);
            problems.warning(at.span, message, "say who may connect: allow: 10.0.0.0/8");
        }
        return;
    };
    let is_allowed_around = |denied: Network| {
        (0..=denied.prefix())
            .filter_map(|prefix| Network::containing(denied.address(), prefix))
            .any(|around| allow.contains_key(&around))
    };
    for &At { value: denied, span } in list(deny) {
        // Nobody sees what is only counted, and finding out what to say may take long.
        if problems.is_full() {
            return;
        }
        if let Some(&at) = allow.get(&denied) {
            let help = "it is in deny too, which wins: remove one";
            let note = (span, "it is denied here");
            problems.warning_with_note(at, format!("allow {denied} lets nobody in"), help, note);
        } else if !is_allowed_around(denied) {
            let inside = allow.keys().filter(|allowed| denied.covers(allowed)).min();
            let help = match inside {
                Some(inside) => format!("the longer prefix wins: allow has {inside}; everyone else is denied anyway"),
                None => "allow lets nobody in from there".to_owned(),
            };
            problems.warning(span, format!("deny {denied} has no effect"), help);
        }
    }
}

/// With defaults filled in.
pub(super) fn model(raw: &raw::Access) -> Access {
    let set = |field: &Field<Vec<At<Network>>>| -> Option<NetworkSet> {
        field.value.as_ref()?;
        Some(list(field).map(|at| at.value).collect())
    };
    Access {
        allow: set(&raw.allow),
        deny: set(&raw.deny).unwrap_or_default(),
    }
}

/// What one client address may do, in the words of the listener's protocol.
pub(super) fn clients(raw: &raw::Listener) -> ClientLimits {
    if raw.protocol.or(Protocol::Tcp) == Protocol::Udp {
        return udp::clients(&raw.udp);
    }
    let rate = raw.access.connection_rate.value.as_ref().map(|at| at.value);
    ClientLimits {
        sessions: raw.access.max_connections_per_client.value.as_ref().map(|at| at.value),
        interval: rate.map(|rate| rate.per / rate.count),
        burst: rate.map_or(1, |rate| rate.count.div_ceil(BURST_PART)),
    }
}
