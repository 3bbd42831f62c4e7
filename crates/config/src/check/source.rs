//! Where a pool's connections come from: addresses of this machine, or the clients' own.

use super::pool::words;
use crate::diagnostic::quote;
use crate::problem::Problems;
use crate::raw::{self, Field};
use crate::source::{At, Span};
use ringway_core::model::{Address, Source, Target};
use std::collections::HashMap;
use std::net::IpAddr;

/// What can be said of a pool alone: `client` stands alone; addresses are there once each, and one of the family of every
/// backend.
pub(super) fn check(pool: &raw::Pool, problems: &mut Problems) {
    let Some(At { value: sources, .. }) = &pool.source.value else {
        return;
    };
    let key = pool.source.key.unwrap_or(pool.name.span);
    let client = sources.iter().find(|at| at.value == raw::Source::Client);
    if let Some(client) = client {
        if sources.len() > 1 {
            let help = "write source: client, or addresses only";
            problems.error(client.span, "client is not alone in source", help);
        }
        let is_unix = |target: &Target| matches!(target, Target::Address(Address::Unix(_)));
        if let Some(backend) = pool.backends().find(|backend| is_unix(&backend.target.value)) {
            problems.error_with_note(
                key,
                format!(
                    "source: client, but backend {} is a UNIX socket, where clients have no address",
                    words(&backend.target.value)
                ),
                "put it into a pool of its own",
                (backend.target.span, "this backend"),
            );
        }
        return;
    }
    let addresses = sources.iter().filter_map(|at| match at.value {
        raw::Source::Address(ip) => Some(At {
            value: ip,
            span: at.span,
        }),
        raw::Source::Client => None,
    });
    addresses_fit(key, &addresses.collect::<Vec<_>>(), pool, problems);
}

fn addresses_fit(key: Span, sources: &[At<IpAddr>], pool: &raw::Pool, problems: &mut Problems) {
    let mut first: HashMap<IpAddr, Span> = HashMap::new();
    for At { value: ip, span } in sources {
        if let Some(&before) = first.get(ip) {
            let note = (before, "it is here first");
            problems.error_with_note(*span, format!("source {ip} is there twice"), "remove one", note);
            continue;
        }
        first.insert(*ip, *span);
    }
    for family in [Family::V4, Family::V6] {
        let Some(backend) = pool.backends().find(|backend| Family::of(backend) == Some(family)) else {
            continue;
        };
        if sources.iter().any(|at| Family::of_ip(at.value) == family) {
            continue;
        }
        let message = format!(
            "source has no {} address, but backend {} needs one",
            family.name(),
            words(&backend.target.value)
        );
        problems.error_with_note(
            key,
            message,
            format!("add an {} address of this machine", family.name()),
            (backend.target.span, "this backend"),
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `None`: a UNIX socket, or a name, which may stand for either.
    fn of(backend: &raw::Backend) -> Option<Self> {
        match &backend.target.value {
            Target::Address(Address::Inet(address)) => Some(Self::of_ip(address.ip())),
            Target::Address(Address::Unix(_)) | Target::Name(_) => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// What clients of a pool's listeners have for an address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clients {
    v4: bool,
    v6: bool,
    /// None: the first UNIX socket that they come through.
    unix: Option<Span>,
    /// There is a listener whose addresses are not all known.
    unknown: bool,
}

impl Clients {
    /// Those of one more listener. An IPv6 socket takes IPv6 alone (IPV6_V6ONLY).
    pub(super) fn add(&mut self, listener: &raw::Listener) {
        let Some(binds) = &listener.bind.value else {
            self.unknown = true;
            return;
        };
        // The header may name clients of either family.
        if !listener.preface.proxy_protocol.is_absent() {
            self.unknown = true;
            return;
        }
        for bind in &binds.value {
            match &bind.value {
                Address::Inet(address) if address.is_ipv4() => self.v4 = true,
                Address::Inet(_) => self.v6 = true,
                Address::Unix(_) => self.unix = self.unix.or(Some(bind.span)),
            }
        }
    }

    const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// With `source: client` and any clients at all, whether they can be taken to the pool's backends.
    pub(super) fn check(self, pool: &raw::Pool, problems: &mut Problems) {
        let is_client = |at: &At<Vec<At<raw::Source>>>| at.value.iter().any(|at| at.value == raw::Source::Client);
        let has_any = self.v4 || self.v6 || self.unix.is_some();
        if !has_any || self.unknown || !pool.source.value.as_ref().is_some_and(is_client) {
            return;
        }
        let key = pool.source.key.unwrap_or(pool.name.span);
        let name = quote(&pool.name.value);
        if let Some(unix) = self.unix {
            let help = "let them have a pool without source: client";
            if self.v4 || self.v6 {
                let message =
                    format!("clients of this socket reach no backend of pool {name}, which has source: client");
                problems.warning(unix, message, help);
            } else {
                let message = format!("source: client, but the clients of pool {name} have no address");
                problems.error_with_note(key, message, "remove it", (unix, "they come through a UNIX socket"));
                return;
            }
        }
        self.families(key, pool, problems);
    }

    /// Whether clients and backends speak the same IP.
    fn families(self, key: Span, pool: &raw::Pool, problems: &mut Problems) {
        let has_names = pool
            .backends()
            .any(|backend| matches!(backend.target.value, Target::Name(_)));
        if has_names || pool.backends.value.as_ref().is_none_or(|at| at.value.partial) {
            return;
        }
        let backend_of = |family| pool.backends().find(|backend| Family::of(backend) == Some(family));
        let families = [Family::V4, Family::V6];
        let meet = |family: &Family| self.has(*family) && backend_of(*family).is_some();
        let help = "a client's address can only be taken to backends of its family";
        if !families.iter().any(meet) {
            let Some((family, backend)) = families.iter().find_map(|&of| Some((of, backend_of(of)?))) else {
                return;
            };
            let message = format!(
                "source: client, but no client of this pool has an {} address",
                family.name()
            );
            let note = (backend.target.span, "as this backend would need");
            problems.error_with_note(key, message, help, note);
            return;
        }
        for family in families {
            match (self.has(family), backend_of(family)) {
                (true, None) => {
                    let message = format!("source: client: clients over {} reach no backend", family.name());
                    problems.warning(key, message, help);
                }
                (false, Some(backend)) => {
                    let (family, span) = (family.name(), backend.target.span);
                    let message = format!("source: client: no client of this pool has an {family} address");
                    problems.warning(span, message, "this backend is never used");
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
}

/// What the model has of it; meaningless if something was reported.
pub(super) fn model(field: &Field<Vec<At<raw::Source>>>) -> Source {
    let Some(At { value: sources, .. }) = &field.value else {
        return Source::Kernel;
    };
    let addresses = sources.iter().map(|at| match at.value {
        raw::Source::Address(ip) => Some(ip),
        raw::Source::Client => None,
    });
    addresses
        .collect::<Option<Vec<_>>>()
        .map_or(Source::Client, Source::Addresses)
}
