//! Tree -> raw configuration: which keys there are, which values they take. Goes on after every problem.
//!
//! The generic part is in `fields`; here each map of the format is one function that reads like the reference
//! (pools in `pool`, health checks in `health`).

mod access;
mod health;
mod pool;
mod preface;
mod udp;

pub(crate) use pool::BALANCES;

use crate::diagnostic::quote;
use crate::fields::{Decoder, narrow};
use crate::keys::Place;
use crate::limits::{
    BACKLOG, BINDS_PER_LISTENER_MAX, BUFFER_COUNT, BUFFER_SIZE, DEAD_PEER_TIMEOUT, DRAIN_DELAY, DRAIN_TIMEOUT,
    HALF_CLOSED_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, LISTENERS_MAX,
    MAX_CONNECTIONS, POOLS_MAX, ROUTING_TIMEOUT, WORKERS,
};
use crate::problem::Fault;
use crate::raw::{Admin, Buffers, Config, Field, Keepalive, Listener, Section, SessionLog};
use crate::source::{At, Span};
use crate::tree::{Kind, Node};
use crate::values::word::{self, Choice};
use crate::values::{address, duration, number, path, size};
use ringway_core::model::{Address, LogFormat, Protocol, Workers};

const PROTOCOLS: [Choice<Protocol>; 3] = [
    Choice {
        name: "tcp",
        aliases: &[],
        value: Protocol::Tcp,
    },
    Choice {
        name: "udp",
        aliases: &[],
        value: Protocol::Udp,
    },
    Choice {
        name: "tls",
        aliases: &["sni", "tls_passthrough"],
        value: Protocol::Tls,
    },
];
const PROTOCOLS_LATER: [&str; 1] = ["http"];

const LOG_FORMATS: [Choice<LogFormat>; 2] = [
    Choice {
        name: "json",
        aliases: &[],
        value: LogFormat::Json,
    },
    Choice {
        name: "text",
        aliases: &[],
        value: LogFormat::Text,
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
    config.workers = fields.value("workers", workers);
    config.pin = fields.value("pin", number::parse_bool);
    config.admin = fields.read("admin", admin);
    config.buffers = fields.read("buffers", buffers);
    config.drain_timeout = fields.duration("drain_timeout", DRAIN_TIMEOUT);
    config.drain_delay = fields.duration("drain_delay", DRAIN_DELAY);
    config.max_unrouted = fields.number("max_unrouted", MAX_CONNECTIONS);
    config.session_log = fields.read("session_log", session_log);
    let listeners = fields.read("listeners", |node, cx| {
        cx.section(node, "listener", LISTENERS_MAX, listener)
    });
    let pools = fields.read("pools", |node, cx| cx.section(node, "pool", POOLS_MAX, pool::pool));
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
    let bind = fields.value("bind", address::parse_admin);
    fields.finish();
    Some(At {
        value: Admin::On(bind),
        span: node.span,
    })
}

fn buffers(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Buffers>> {
    let mut fields = cx.fields(node, Place::Buffers, "buffers")?;
    let count = fields.value("count", |text| {
        number::parse_power_of_two(text, BUFFER_COUNT).map(narrow)
    });
    let size = fields.value("size", |text| size::parse_power_of_two(text, BUFFER_SIZE).map(narrow));
    fields.finish();
    Some(At {
        value: Buffers { count, size },
        span: node.span,
    })
}

/// `off`, where to, or a map.
fn session_log(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Option<SessionLog>>> {
    if let Kind::Scalar { .. } = node.kind {
        let to = cx.value(node, "session_log", |text| match text {
            "off" => Ok(None),
            "false" | "no" | "none" => Err(Fault::new(format!("{} is not known", quote(text)), "write off")),
            other => path::parse_log_target(other).map(Some),
        })?;
        return Some(At {
            value: to.value.map(|to| SessionLog {
                to: Field {
                    key: Some(node.span),
                    value: Some(At {
                        value: to,
                        span: node.span,
                    }),
                },
                format: Field::default(),
            }),
            span: node.span,
        });
    }
    let mut fields = cx.fields(node, Place::SessionLog, "session_log")?;
    let log = SessionLog {
        to: fields.value("to", path::parse_log_target),
        format: fields.value("format", |text| word::choose(text, &LOG_FORMATS, &[])),
    };
    if log.to.is_absent() {
        fields.missing("to", "write to: stderr, or the path of a file");
    }
    fields.finish();
    Some(At {
        value: Some(log),
        span: node.span,
    })
}

/// Of a listener or a pool.
fn keepalive(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Keepalive>> {
    let mut fields = cx.fields(node, Place::Keepalive, "tcp_keepalive")?;
    let keepalive = Keepalive {
        idle: fields.value("idle", |text| duration::parse_seconds(text, KEEPALIVE_IDLE)),
        interval: fields.value("interval", |text| duration::parse_seconds(text, KEEPALIVE_INTERVAL)),
        count: fields.number("count", KEEPALIVE_COUNT),
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
    listener.bind = binds(fields.values("bind", BINDS_PER_LISTENER_MAX, address::parse_binds));
    listener.protocol = fields.value("protocol", |text| word::choose(text, &PROTOCOLS, &PROTOCOLS_LATER));
    listener.pool = fields.value("pool", name_of_pool);
    listener.backlog = fields.number("backlog", BACKLOG);
    listener.routing_timeout = fields.duration("routing_timeout", ROUTING_TIMEOUT);
    listener.idle_timeout = fields.duration("idle_timeout", IDLE_TIMEOUT);
    listener.half_closed_timeout = fields.duration("half_closed_timeout", HALF_CLOSED_TIMEOUT);
    listener.keepalive = fields.read("tcp_keepalive", keepalive);
    listener.dead_peer_timeout = fields.duration("dead_peer_timeout", DEAD_PEER_TIMEOUT);
    listener.max_connections = fields.number("max_connections", MAX_CONNECTIONS);
    listener.access = access::decode(&mut fields);
    listener.affinity_group = fields.value("affinity_group", |text| {
        word::check_name(text).map(|()| text.to_owned())
    });
    listener.preface = preface::decode(&mut fields);
    listener.udp = udp::decode(&mut fields);
    fields.finish();
    listener
}

/// Ranges of ports, each as its addresses.
fn binds(written: Field<Vec<At<Vec<Address>>>>) -> Field<Vec<At<Address>>> {
    let spread = |At { value, span }: At<Vec<Address>>| value.into_iter().map(move |value| At { value, span });
    Field {
        key: written.key,
        value: written.value.map(|At { value, span }| At {
            value: value.into_iter().flat_map(spread).collect(),
            span,
        }),
    }
}

/// Whether it is defined is found out when all files are read.
fn name_of_pool(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty", "write the name of a pool"));
    }
    Ok(text.to_owned())
}

impl Listener {
    /// Its map could not be read, which was reported: nothing in it counts as missing.
    fn mark_unusable(&mut self) {
        let seen: Span = self.name.span;
        (self.bind.key, self.protocol.key, self.pool.key) = (Some(seen), Some(seen), Some(seen));
    }
}
