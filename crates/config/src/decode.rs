//! Tree -> raw configuration: which keys there are, which values they take. Goes on after every problem.
//!
//! The generic part is in `fields`; here each map of the format is one function that reads like the reference.

use crate::diagnostic::quote;
use crate::fields::{Decoder, Fields};
use crate::keys::Place;
use crate::limits::{
    BACKENDS_PER_POOL_MAX, BACKLOG, BINDS_PER_LISTENER_MAX, BUFFER_COUNT, BUFFER_SIZE, CONNECT_TIMEOUT,
    DEAD_PEER_TIMEOUT, DRAIN_DELAY, DRAIN_TIMEOUT, HALF_CLOSED_TIMEOUT, HASH_SEED, IDLE_TIMEOUT, KEEPALIVE_COUNT,
    KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, LISTENERS_MAX, MAX_CONNECTIONS, POOLS_MAX, ROUTING_TIMEOUT,
    SOURCE_ADDRESSES_MAX, TRIES, WEIGHT, WORKERS,
};
use crate::problem::Fault;
use crate::raw::{Admin, Backend, Buffers, Config, Field, Hash, Keepalive, Listener, Pool, Section};
use crate::source::{At, Span};
use crate::tree::{Kind, Node};
use crate::values::word::{self, Choice};
use crate::values::{address, duration, number, size};
use ringway_core::model::{Balance, HashAlgorithm, Protocol, Workers};

const PROTOCOLS: [Choice<Protocol>; 1] = [Choice {
    name: "tcp",
    aliases: &[],
    value: Protocol::Tcp,
}];
const PROTOCOLS_LATER: [&str; 3] = ["udp", "tls", "http"];

/// Also used by `--balance`.
pub(crate) const BALANCES: [Choice<Balance>; 3] = [
    Choice {
        name: "round_robin",
        aliases: &[],
        value: Balance::RoundRobin,
    },
    Choice {
        name: "least_connections",
        aliases: &["leastconn", "least_conn"],
        value: Balance::LeastConnections,
    },
    Choice {
        name: "ip_hash",
        aliases: &["source"],
        value: Balance::IpHash,
    },
];
pub(crate) const BALANCES_LATER: [&str; 4] = [
    "weighted_round_robin",
    "least_response_time",
    "least_bandwidth",
    "random",
];

const HASHES: [Choice<HashAlgorithm>; 2] = [
    Choice {
        name: "rendezvous",
        aliases: &[],
        value: HashAlgorithm::Rendezvous,
    },
    Choice {
        name: "maglev",
        aliases: &[],
        value: HashAlgorithm::Maglev,
    },
];

/// The outermost map of one file.
pub(crate) fn config(root: &Node, cx: &mut Decoder<'_>) -> Config {
    let mut config = Config::default();
    if root.kind == Kind::Null {
        // What is missing then is said by `check`, unless another file has it.
        return config;
    }
    let Some(mut fields) = cx.fields(root, Place::Top, "the file") else {
        config.partial = true;
        return config;
    };
    config.workers = fields.read("workers", |node, cx| cx.value(node, "workers", workers));
    config.pin = fields.read("pin", |node, cx| cx.value(node, "pin", number::parse_bool));
    config.admin = fields.read("admin", admin);
    config.buffers = fields.read("buffers", buffers);
    config.drain_timeout = fields.read("drain_timeout", |node, cx| {
        cx.value(node, "drain_timeout", |t| duration::parse(t, DRAIN_TIMEOUT))
    });
    config.drain_delay = fields.read("drain_delay", |node, cx| {
        cx.value(node, "drain_delay", |t| duration::parse(t, DRAIN_DELAY))
    });
    let listeners = fields.read("listeners", |node, cx| {
        cx.section(node, "listener", LISTENERS_MAX, listener)
    });
    let pools = fields.read("pools", |node, cx| cx.section(node, "pool", POOLS_MAX, pool));
    config.partial = listeners.is_unusable() || pools.is_unusable();
    config.listeners = Section {
        key: listeners.key,
        entries: listeners.value.map_or_else(Vec::new, |at| at.value),
    };
    config.pools = Section {
        key: pools.key,
        entries: pools.value.map_or_else(Vec::new, |at| at.value),
    };
    fields.finish();
    config
}

/// `auto` or a number; also used by `--workers`.
pub(crate) fn workers(text: &str) -> Result<Workers, Fault> {
    if text == "auto" {
        return Ok(Workers::Auto);
    }
    let count = number::parse(text, WORKERS).map_err(|fault| Fault {
        help: format!("write auto, or {} to {}", WORKERS.min, WORKERS.max),
        ..fault
    })?;
    Ok(Workers::Count(narrow(count)))
}

fn admin(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Admin>> {
    if let Kind::Scalar { .. } = node.kind {
        return cx.value(node, "admin", |text| match text {
            "off" => Ok(Admin::Off),
            "false" | "no" | "none" => Err(Fault::new(format!("{} is not known", quote(text)), "write off")),
            other => {
                let example = address::parse_admin(other).map_or("127.0.0.1:9900".to_owned(), |at| at.to_string());
                let help = format!("write off, or {{ bind: {} }}", quote(&example));
                Err(Fault::new(format!("{} is not a map", quote(other)), help))
            }
        });
    }
    let mut fields = cx.fields(node, Place::Admin, "admin")?;
    let bind = fields.read("bind", |node, cx| cx.value(node, "admin.bind", address::parse_admin));
    fields.finish();
    Some(At {
        value: Admin::On(bind),
        span: node.span,
    })
}

fn buffers(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Buffers>> {
    let mut fields = cx.fields(node, Place::Buffers, "buffers")?;
    let count = fields.read("count", |node, cx| {
        cx.value(node, "buffers.count", |text| {
            number::parse_power_of_two(text, BUFFER_COUNT).map(narrow)
        })
    });
    let size = fields.read("size", |node, cx| {
        cx.value(node, "buffers.size", |text| {
            size::parse_power_of_two(text, BUFFER_SIZE).map(narrow)
        })
    });
    fields.finish();
    Some(At {
        value: Buffers { count, size },
        span: node.span,
    })
}

fn keepalive(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Keepalive>> {
    let mut fields = cx.fields(node, Place::Keepalive, "tcp_keepalive")?;
    let keepalive = Keepalive {
        idle: fields.read("idle", |node, cx| {
            cx.value(node, "tcp_keepalive.idle", |text| {
                duration::parse_seconds(text, KEEPALIVE_IDLE)
            })
        }),
        interval: fields.read("interval", |node, cx| {
            cx.value(node, "tcp_keepalive.interval", |text| {
                duration::parse_seconds(text, KEEPALIVE_INTERVAL)
            })
        }),
        count: fields.read("count", |node, cx| {
            cx.value(node, "tcp_keepalive.count", |text| {
                number::parse(text, KEEPALIVE_COUNT).map(narrow)
            })
        }),
    };
    fields.finish();
    Some(At {
        value: keepalive,
        span: node.span,
    })
}

fn listener(name: At<String>, node: &Node, cx: &mut Decoder<'_>) -> Listener {
    let what = format!("listener {}", quote(&name.value));
    let mut listener = Listener::new(name);
    let Some(mut fields) = cx.fields(node, Place::Listener, &what) else {
        listener.mark_unusable();
        return listener;
    };
    listener.bind = fields.read("bind", |node, cx| {
        cx.one_or_many(node, "bind", BINDS_PER_LISTENER_MAX, address::parse_bind)
    });
    listener.protocol = fields.read("protocol", |node, cx| {
        cx.value(node, "protocol", |text| {
            word::choose(text, &PROTOCOLS, &PROTOCOLS_LATER)
        })
    });
    listener.pool = fields.read("pool", |node, cx| cx.value(node, "pool", name_of_pool));
    listener.backlog = fields.read("backlog", |node, cx| {
        cx.value(node, "backlog", |text| number::parse(text, BACKLOG).map(narrow))
    });
    listener.routing_timeout = fields.duration("routing_timeout", ROUTING_TIMEOUT);
    listener.idle_timeout = fields.duration("idle_timeout", IDLE_TIMEOUT);
    listener.half_closed_timeout = fields.duration("half_closed_timeout", HALF_CLOSED_TIMEOUT);
    listener.keepalive = fields.read("tcp_keepalive", keepalive);
    listener.dead_peer_timeout = fields.duration("dead_peer_timeout", DEAD_PEER_TIMEOUT);
    listener.max_connections = fields.read("max_connections", |node, cx| {
        cx.value(node, "max_connections", |text| {
            number::parse(text, MAX_CONNECTIONS).map(narrow)
        })
    });
    fields.finish();
    listener
}

/// Whether it is defined is found out when all files are read.
fn name_of_pool(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty", "write the name of a pool"));
    }
    Ok(text.to_owned())
}

fn pool(name: At<String>, node: &Node, cx: &mut Decoder<'_>) -> Pool {
    let what = format!("pool {}", quote(&name.value));
    let mut pool = Pool::new(name);
    let Some(mut fields) = cx.fields(node, Place::Pool, &what) else {
        pool.mark_unusable();
        return pool;
    };
    pool.balance = fields.read("balance", |node, cx| {
        cx.value(node, "balance", |text| word::choose(text, &BALANCES, &BALANCES_LATER))
    });
    pool.hash = fields.read("hash", hash);
    pool.connect_timeout = fields.duration("connect_timeout", CONNECT_TIMEOUT);
    pool.tries = fields.read("tries", |node, cx| {
        cx.value(node, "tries", |text| number::parse(text, TRIES).map(narrow))
    });
    pool.source = fields.read("source", |node, cx| {
        cx.one_or_many(node, "source", SOURCE_ADDRESSES_MAX, address::parse_source)
    });
    pool.keepalive = fields.read("tcp_keepalive", keepalive);
    pool.dead_peer_timeout = fields.duration("dead_peer_timeout", DEAD_PEER_TIMEOUT);
    pool.backends = fields.read("backends", backends);
    fields.finish();
    pool
}

fn hash(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Hash>> {
    let mut fields = cx.fields(node, Place::Hash, "hash")?;
    let algorithm = fields.read("algorithm", |node, cx| {
        cx.value(node, "hash.algorithm", |text| word::choose(text, &HASHES, &[]))
    });
    let seed = fields.read("seed", |node, cx| {
        cx.value(node, "hash.seed", |text| number::parse(text, HASH_SEED))
    });
    fields.finish();
    Some(At {
        value: Hash { algorithm, seed },
        span: node.span,
    })
}

fn backends(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Vec<Backend>>> {
    let items = match &node.kind {
        Kind::List(items) => items.as_slice(),
        // One backend is a list of one.
        Kind::Scalar { .. } => std::slice::from_ref(node),
        Kind::Null => &[],
        Kind::Map(_) => {
            cx.problems.error(
                node.span,
                "backends is a map",
                "write a list: each entry on its own line after a dash",
            );
            return None;
        }
    };
    if !cx.fits(node, items.len(), BACKENDS_PER_POOL_MAX, "backends") {
        return None;
    }
    let read: Vec<Option<Backend>> = items.iter().map(|item| backend(item, cx)).collect();
    // A pool whose only backend has a problem is not a pool without backends.
    if !read.is_empty() && read.iter().all(Option::is_none) {
        return None;
    }
    Some(At {
        value: read.into_iter().flatten().collect(),
        span: node.span,
    })
}

fn backend(node: &Node, cx: &mut Decoder<'_>) -> Option<Backend> {
    if let Kind::Map(_) = node.kind {
        let mut fields = cx.fields(node, Place::Backend, "backend")?;
        let address = fields.read("address", labelled_address);
        let weight = fields.read("weight", |node, cx| cx.value(node, "weight", weight));
        if address.is_absent() {
            fields.missing(
                "address",
                "write where the backend listens, such as address: 10.0.0.11:5432",
            );
        }
        fields.finish();
        let At {
            value: (value, label),
            span,
        } = address.value?;
        return Some(Backend {
            address: At { value, span },
            label,
            weight,
        });
    }
    let At {
        value: (value, label),
        span,
    } = labelled_address(node, cx)?;
    Some(Backend {
        address: At { value, span },
        label,
        weight: Field::default(),
    })
}

fn labelled_address(node: &Node, cx: &mut Decoder<'_>) -> Option<At<(ringway_core::model::Address, String)>> {
    cx.value(node, "backend", |text| {
        Ok((address::parse_backend(text)?, text.to_owned()))
    })
}

fn weight(text: &str) -> Result<u16, Fault> {
    if text == "0" {
        let help = format!("write {} or more, or remove the backend", WEIGHT.min);
        return Err(Fault::new("0 would never be chosen", help));
    }
    number::parse(text, WEIGHT).map(narrow)
}

/// A checked number in the type that the model keeps it in.
fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    match T::try_from(number) {
        Ok(narrowed) => narrowed,
        // The ranges in `limits` are asserted at compile time to fit the types of the model.
        Err(_) => unreachable!("a number was not checked against its range"),
    }
}

impl Fields<'_, '_, '_> {
    fn duration(&mut self, name: &'static str, limits: crate::limits::Span) -> Field<std::time::Duration> {
        self.read(name, |node, cx| {
            cx.value(node, name, |text| duration::parse(text, limits))
        })
    }
}

impl Listener {
    /// Its map could not be read, which was reported: nothing in it counts as missing.
    fn mark_unusable(&mut self) {
        let seen: Span = self.name.span;
        (self.bind.key, self.protocol.key, self.pool.key) = (Some(seen), Some(seen), Some(seen));
    }
}

impl Pool {
    /// Its map could not be read, which was reported: nothing in it counts as missing.
    fn mark_unusable(&mut self) {
        self.backends.key = Some(self.name.span);
    }
}
