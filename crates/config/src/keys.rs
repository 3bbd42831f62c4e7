//! The keys of the format, each declared once: where it stands, what it takes, its default, what it means.
//!
//! `decode` accepts exactly these, suggestions come from these, and the reference in docs/configuration.md is rendered
//! from these. A test writes out every default found here and compares with a configuration that leaves them out.

use crate::suggest;

/// A map of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The file itself.
    Top,
    /// `admin`.
    Admin,
    /// `buffers`.
    Buffers,
    /// One of `listeners`.
    Listener,
    /// `tcp_keepalive` of a listener or a pool.
    Keepalive,
    /// One of `pools`.
    Pool,
    /// `hash` of a pool.
    Hash,
    /// One of `backends`, when written as a map.
    Backend,
}

impl Place {
    /// In the order of the reference.
    pub(crate) const ALL: [Self; 8] = [
        Self::Top,
        Self::Admin,
        Self::Buffers,
        Self::Listener,
        Self::Pool,
        Self::Hash,
        Self::Backend,
        Self::Keepalive,
    ];

    /// How sentences call it.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Top => "the top level",
            Self::Admin => "`admin`",
            Self::Buffers => "`buffers`",
            Self::Listener => "a listener",
            Self::Keepalive => "`tcp_keepalive`",
            Self::Pool => "a pool",
            Self::Hash => "`hash`",
            Self::Backend => "a backend",
        }
    }

    /// How the reference calls it.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Top => "Top level",
            Self::Admin => "`admin`",
            Self::Buffers => "`buffers`",
            Self::Listener => "A listener (`listeners.NAME`)",
            Self::Keepalive => "`tcp_keepalive` (of a listener or a pool)",
            Self::Pool => "A pool (`pools.NAME`)",
            Self::Hash => "`hash` (of a pool)",
            Self::Backend => "A backend (one of `backends`)",
        }
    }
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Absent {
    /// It must be there.
    Required,
    /// As if this were written.
    Same(&'static str),
    /// Something that cannot be written as a value.
    Means(&'static str),
    /// A map whose keys have their own defaults.
    Inner,
}

/// A key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Where it stands.
    pub(crate) place: Place,
    /// As documented.
    pub(crate) name: &'static str,
    /// Also accepted.
    pub(crate) aliases: &'static [&'static str],
    /// What it takes, for the reference.
    pub(crate) takes: &'static str,
    /// When absent.
    pub(crate) absent: Absent,
    /// What it means, for the reference.
    pub(crate) meaning: &'static str,
}

macro_rules! keys {
    ($($place:ident { $($name:literal $(or $alias:literal)*, $takes:literal, $absent:expr, $meaning:literal;)+ })+) => {
        /// Every key.
        pub(crate) const KEYS: &[Key] = {
            use Absent::{Inner, Means, Required, Same};
            &[$($(Key {
                place: Place::$place,
                name: $name,
                aliases: &[$($alias),*],
                takes: $takes,
                absent: $absent,
                meaning: $meaning,
            },)+)+]
        };
    };
}

keys! {
    Top {
        "workers", "`auto`, or 1 to 1024", Same("auto"),
            "Worker threads. `auto`: one per core of the inherited affinity mask, capped by the cgroup's CPU quota.";
        "pin", "`true`, `false`", Same("true"),
            "Whether each worker stays on one core of the inherited affinity mask.";
        "admin", "a map, or `off`", Inner,
            "The admin port: metrics and health. It only reads.";
        "buffers", "a map", Inner,
            "The receive buffers of each worker.";
        "drain_timeout", "0s to 1d", Same("30s"),
            "How long relays may finish after a stop was asked for; the rest is reset.";
        "drain_delay", "0s to 1h", Same("0s"),
            "How long readiness is already off before accepting stops, so that a load balancer in front can notice.";
        "listeners", "a map of names", Required,
            "What is listened on. A name is a metric label: letters, digits, `_`, `.` and `-`, at most 64 of them.";
        "pools", "a map of names", Required,
            "Where connections go. Names as for listeners.";
    }
    Admin {
        "bind", "`ADDRESS:PORT`", Same("127.0.0.1:9900"),
            "Where the admin port listens.";
    }
    Buffers {
        "count", "a power of two, 16 to 32768", Same("1024"),
            "Buffers of one worker.";
        "size", "a power of two, 1KiB to 1MiB", Same("16KiB"),
            "Size of one buffer. `count` × `size` is at most 1GiB.";
    }
    Listener {
        "bind", "`ADDRESS:PORT`, `unix:PATH`, or a list of these", Required,
            "Where it listens. IPv6 addresses stand in brackets. `*:PORT` and `:PORT` mean `0.0.0.0:PORT`, every IPv4 \
             address; `[::]:PORT` is every IPv6 address and nothing else.";
        "protocol", "`tcp`", Required,
            "What it speaks.";
        "pool", "a pool's name", Required,
            "Where its connections go.";
        "backlog", "1 to 65535", Means("`net.core.somaxconn`"),
            "Connections that the kernel has completed and nobody has accepted yet.";
        "routing_timeout" or "hello_timeout", "100ms to 10m", Same("5s"),
            "From accept until it is known where the connection goes. No byte extends it.";
        "idle_timeout", "100ms to 365d", Same("1h"),
            "A relay without a byte in either direction for this long ends.";
        "half_closed_timeout", "100ms to 1d", Same("1m"),
            "After one side has ended, the other may stay silent for this long.";
        "tcp_keepalive", "a map", Inner,
            "Keepalive probes towards clients.";
        "dead_peer_timeout", "1s to 1h", Same("1m"),
            "A client that blocks the relay and is not heard of for this long is reset. One that reads slowly but \
             acknowledges is kept.";
        "max_connections", "1 to 1000000", Means("what the descriptor limit allows"),
            "Connections open at the same time, over all workers.";
    }
    Pool {
        "balance", "`round_robin`, `least_connections`, `ip_hash`", Same("round_robin"),
            "How a backend is chosen. `leastconn` and `least_conn` mean `least_connections`, `source` means `ip_hash`.";
        "hash", "a map", Inner,
            "How `ip_hash` maps clients to backends.";
        "connect_timeout", "10ms to 2m", Same("5s"),
            "For one try.";
        "tries", "1 to 16", Same("3"),
            "Backends tried for one connection.";
        "source", "an IP address, or a list", Means("the kernel's choice"),
            "Addresses to connect from. Several widen the range of ports.";
        "tcp_keepalive", "a map", Inner,
            "Keepalive probes towards backends.";
        "dead_peer_timeout", "1s to 1h", Same("1m"),
            "A backend that blocks the relay and is not heard of for this long is reset.";
        "backends", "a list of addresses or maps", Required,
            "What is chosen from. Each entry is `ADDRESS:PORT`, `unix:PATH`, or a map with the keys below.";
    }
    Hash {
        "algorithm", "`rendezvous`, `maglev`", Same("rendezvous"),
            "`rendezvous`: a lost backend moves only its own clients. `maglev`: constant time whatever the size of the pool.";
        "seed", "0 to 18446744073709551615", Same("0"),
            "Balancers that shall agree on every client use the same seed.";
    }
    Backend {
        "address", "`ADDRESS:PORT`, `unix:PATH`", Required,
            "Where it listens. Names are not resolved in this version.";
        "weight", "1 to 1000", Same("1"),
            "Its share, relative to the other backends of the pool.";
    }
    Keepalive {
        "idle", "1s to 9h6m7s, whole seconds", Same("1m"),
            "Silence before the first probe.";
        "interval", "1s to 9h6m7s, whole seconds", Same("10s"),
            "Between probes.";
        "count", "1 to 127", Same("6"),
            "Unanswered probes after which the peer is gone.";
    }
}

/// Keys that a later version will know.
const LATER: &[(Place, &[&str])] = &[
    (Place::Top, &["control", "log", "tls"]),
    (
        Place::Listener,
        &[
            "session_timeout",
            "max_sessions",
            "routes",
            "fallback",
            "tls",
            "proxy_protocol",
        ],
    ),
    (
        Place::Pool,
        &[
            "slow_start",
            "fail_open",
            "queue",
            "on_backend_down",
            "failback",
            "max_lifetime",
            "health_check",
            "passive",
            "affinity",
            "resolve",
            "proxy_protocol",
        ],
    ),
    (Place::Backend, &["max_connections", "backup", "health_check", "name"]),
];

/// What people bring from other programs, and the key it is here.
const ELSEWHERE: &[(Place, &str, &str)] = &[
    (Place::Top, "frontends", "listeners"),
    (Place::Top, "backends", "pools"),
    (Place::Top, "upstreams", "pools"),
    (Place::Top, "clusters", "pools"),
    (Place::Top, "threads", "workers"),
    (Place::Listener, "address", "bind"),
    (Place::Listener, "listen", "bind"),
    (Place::Listener, "port", "bind"),
    (Place::Listener, "upstream", "pool"),
    (Place::Listener, "backend", "pool"),
    (Place::Listener, "mode", "protocol"),
    (Place::Listener, "maxconn", "max_connections"),
    (Place::Pool, "servers", "backends"),
    (Place::Pool, "endpoints", "backends"),
    (Place::Pool, "algorithm", "balance"),
    (Place::Pool, "lb_policy", "balance"),
    (Place::Pool, "strategy", "balance"),
    (Place::Pool, "retries", "tries"),
    (Place::Backend, "host", "address"),
    (Place::Backend, "server", "address"),
    (Place::Backend, "endpoint", "address"),
];

/// For `<<`, which YAML 1.1 has and YAML 1.2 has not.
pub(crate) const MERGE_HELP: &str = "merge keys are not supported; give a whole value an anchor instead";

/// What a key's name turned out to be.
pub(crate) enum Found {
    /// A key of this place.
    Key(&'static Key),
    /// Not yet.
    Later,
    /// Nothing we know.
    Unknown {
        /// What would be right.
        help: String,
        /// The key that was probably meant.
        meant: Option<&'static str>,
    },
}

/// The keys of a place.
pub(crate) fn of(place: Place) -> impl Iterator<Item = &'static Key> + Clone {
    KEYS.iter().filter(move |key| key.place == place)
}

/// Finds a key by what was written.
pub(crate) fn find(place: Place, name: &str) -> Found {
    if let Some(key) = of(place).find(|key| key.name == name || key.aliases.contains(&name)) {
        return Found::Key(key);
    }
    if LATER.iter().any(|(at, names)| *at == place && names.contains(&name)) {
        return Found::Later;
    }
    let names = of(place).map(|key| key.name);
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(at, typed, _)| *at == place && *typed == name)
        .map(|(.., right)| *right);
    let meant = elsewhere.or_else(|| suggest::nearest(name, names.clone()));
    let help = match meant {
        _ if name == "<<" => MERGE_HELP.to_owned(),
        Some(right) => format!("did you mean \"{right}\"?"),
        None => match other_place(place, name) {
            Some(other) => format!("it belongs in {}", other.words()),
            None => suggest::help(name, "keys", names),
        },
    };
    Found::Unknown { help, meant }
}

/// The one other place that has a key of this very name.
fn other_place(place: Place, name: &str) -> Option<Place> {
    let mut places = KEYS
        .iter()
        .filter(|key| key.place != place && key.name == name)
        .map(|key| key.place);
    places.next().filter(|_| places.next().is_none())
}

/// The reference of all keys as Markdown, one table for each map of the format.
pub fn reference() -> String {
    let mut text = String::new();
    for place in Place::ALL {
        text.push_str(&format!(
            "### {}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n",
            place.heading()
        ));
        for key in of(place) {
            let absent = match key.absent {
                Absent::Required => "required".to_owned(),
                Absent::Same(value) => format!("`{value}`"),
                Absent::Means(words) => words.to_owned(),
                Absent::Inner => "as below".to_owned(),
            };
            let aliases: String = key.aliases.iter().map(|alias| format!(" (or `{alias}`)")).collect();
            text.push_str(&format!(
                "| `{}`{aliases} | {} | {absent} | {} |\n",
                key.name, key.takes, key.meaning
            ));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
#[path = "keys_test.rs"]
mod tests;
