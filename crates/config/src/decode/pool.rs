//! Tree -> raw configuration: a pool and its backends.

use super::health::{health_check, passive};
use super::{keepalive, preface};
use crate::diagnostic::quote;
use crate::fields::{Decoder, narrow};
use crate::keys::Place;
use crate::limits::{
    BACKENDS_PER_POOL_MAX, CONNECT_TIMEOUT, DEAD_PEER_TIMEOUT, HASH_MAX_LOAD, HASH_SEED, MAX_CONNECTIONS, MAX_LIFETIME,
    QUEUE_MAX, QUEUE_TIMEOUT, RESOLVE_MAX, RESOLVE_MIN, RESOLVE_SERVERS_MAX, SILENCE, SLOW_START, SOURCE_ADDRESSES_MAX,
    TRIES, WEIGHT,
};
use crate::problem::Fault;
use crate::raw::{Backend, Backends, Hash, Pool, Queue, Resolve};
use crate::source::At;
use crate::tree::{Kind, Node};
use crate::values::word::{self, Choice};
use crate::values::{address, duration, name, number};
use ringway_core::model::{Balance, Failback, HashAlgorithm, OnBackendDown, Target};

/// Also used by `--balance`.
pub(crate) const BALANCES: [Choice<Balance>; 6] = [
    Choice {
        name: Balance::RoundRobin.name(),
        aliases: &["weighted_round_robin"],
        value: Balance::RoundRobin,
    },
    Choice {
        name: Balance::LeastConnections.name(),
        aliases: &["leastconn", "least_conn"],
        value: Balance::LeastConnections,
    },
    Choice {
        name: Balance::LeastResponseTime.name(),
        aliases: &["least_time", "ewma"],
        value: Balance::LeastResponseTime,
    },
    Choice {
        name: Balance::LeastBandwidth.name(),
        aliases: &[],
        value: Balance::LeastBandwidth,
    },
    Choice {
        name: Balance::IpHash.name(),
        aliases: &["source"],
        value: Balance::IpHash,
    },
    Choice {
        name: Balance::Random.name(),
        aliases: &["random_two_choices"],
        value: Balance::Random,
    },
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

const ON_BACKEND_DOWN: [Choice<OnBackendDown>; 3] = [
    Choice {
        name: "keep",
        aliases: &[],
        value: OnBackendDown::Keep,
    },
    Choice {
        name: "close",
        aliases: &[],
        value: OnBackendDown::Close,
    },
    Choice {
        name: "move",
        aliases: &[],
        value: OnBackendDown::Move,
    },
];

const FAILBACKS: [Choice<Failback>; 2] = [
    Choice {
        name: "auto",
        aliases: &[],
        value: Failback::Auto,
    },
    Choice {
        name: "manual",
        aliases: &[],
        value: Failback::Manual,
    },
];

/// One of `pools`.
pub(super) fn pool(name: At<String>, node: &Node, cx: &mut Decoder<'_>) -> Pool {
    let what = format!("pool {}", quote(&name.value));
    let mut pool = Pool::new(name);
    let Some(mut fields) = cx.fields(node, Place::Pool, &what) else {
        pool.mark_unusable();
        return pool;
    };
    pool.balance = fields.value("balance", |text| word::choose(text, &BALANCES, &[]));
    pool.hash = fields.read("hash", hash);
    pool.connect_timeout = fields.duration("connect_timeout", CONNECT_TIMEOUT);
    pool.tries = fields.number("tries", TRIES);
    pool.source = fields.values("source", SOURCE_ADDRESSES_MAX, address::parse_source);
    pool.send_proxy = fields.read("send_proxy", preface::send_proxy);
    pool.keepalive = fields.read("tcp_keepalive", keepalive);
    pool.dead_peer_timeout = fields.duration("dead_peer_timeout", DEAD_PEER_TIMEOUT);
    pool.queue = fields.read("queue", |node, cx| cx.map_or_off(node, "queue", "{ max: 1000 }", queue));
    pool.health_check = fields.read("health_check", health_check);
    pool.passive = fields.read("passive", |node, cx| {
        cx.map_or_off(node, "passive", "{ fails: 1 }", passive)
    });
    pool.slow_start = fields.value("slow_start", |text| duration::parse_or_off(text, SLOW_START));
    pool.silence = fields.value("silence", |text| duration::parse_or_off(text, SILENCE));
    pool.fail_open = fields.value("fail_open", number::parse_bool);
    pool.on_backend_down = fields.value("on_backend_down", |text| word::choose(text, &ON_BACKEND_DOWN, &[]));
    pool.failback = fields.value("failback", |text| word::choose(text, &FAILBACKS, &[]));
    pool.max_lifetime = fields.value("max_lifetime", |text| duration::parse_or_off(text, MAX_LIFETIME));
    pool.resolve = fields.read("resolve", resolve);
    pool.backends = fields.read("backends", backends);
    fields.finish();
    pool
}

fn hash(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Hash>> {
    let mut fields = cx.fields(node, Place::Hash, "hash")?;
    let hash = Hash {
        algorithm: fields.value("algorithm", |text| word::choose(text, &HASHES, &[])),
        seed: fields.number("seed", HASH_SEED),
        max_load: fields.value("max_load", |text| {
            Ok(number::parse_factor_or_off(text, HASH_MAX_LOAD)?.map(narrow))
        }),
    };
    fields.finish();
    Some(At {
        value: hash,
        span: node.span,
    })
}

fn queue(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Queue>> {
    let mut fields = cx.fields(node, Place::Queue, "queue")?;
    let queue = Queue {
        max: fields.number("max", QUEUE_MAX),
        timeout: fields.duration("timeout", QUEUE_TIMEOUT),
    };
    if queue.max.is_absent() {
        fields.missing("max", "say how many connections may wait, such as max: 1000");
    }
    fields.finish();
    Some(At {
        value: queue,
        span: node.span,
    })
}

fn resolve(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Resolve>> {
    let mut fields = cx.fields(node, Place::Resolve, "resolve")?;
    let resolve = Resolve {
        servers: fields.values("servers", RESOLVE_SERVERS_MAX, address::parse_dns_server),
        min_interval: fields.duration("min_interval", RESOLVE_MIN),
        max_interval: fields.duration("max_interval", RESOLVE_MAX),
    };
    fields.finish();
    Some(At {
        value: resolve,
        span: node.span,
    })
}

fn backends(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Backends>> {
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
    let partial = read.iter().any(Option::is_none);
    Some(At {
        value: Backends {
            list: read.into_iter().flatten().collect(),
            partial,
        },
        span: node.span,
    })
}

fn backend(node: &Node, cx: &mut Decoder<'_>) -> Option<Backend> {
    let Kind::Map(_) = node.kind else {
        return labelled_target(node, cx).map(unlabelled);
    };
    let mut fields = cx.fields(node, Place::Backend, "backend")?;
    let address = fields.read("address", labelled_target);
    let weight = fields.value("weight", weight);
    let max_connections = fields.number("max_connections", MAX_CONNECTIONS);
    let backup = fields.value("backup", number::parse_bool);
    if address.is_absent() {
        fields.missing(
            "address",
            "write where the backend listens, such as address: 10.0.0.11:5432",
        );
    }
    fields.finish();
    Some(Backend {
        weight,
        max_connections,
        backup,
        ..unlabelled(address.value?)
    })
}

fn labelled_target(node: &Node, cx: &mut Decoder<'_>) -> Option<At<(Target, String)>> {
    cx.value(node, "backend", |text| Ok((name::parse_target(text)?, text.to_owned())))
}

fn unlabelled(labelled: At<(Target, String)>) -> Backend {
    let At {
        value: (value, label),
        span,
    } = labelled;
    Backend::new(At { value, span }, label)
}

fn weight(text: &str) -> Result<u16, Fault> {
    if text == "0" {
        let help = format!("write {} or more, or remove the backend", WEIGHT.min);
        return Err(Fault::new("0 would never be chosen", help));
    }
    number::parse(text, WEIGHT).map(narrow)
}

impl Pool {
    /// Its map could not be read, which was reported: nothing in it counts as missing.
    fn mark_unusable(&mut self) {
        self.backends.key = Some(self.name.span);
    }
}
