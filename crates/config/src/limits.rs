//! Every limit and default of the file format, and how they relate.
//!
//! The relations stand next to the numbers and are asserted when this crate is compiled. What only a machine can say
//! (descriptors, ports, rights) is not here: `ringway run` checks it.

use std::time::Duration;

/// Bytes of configuration text in all files together. A thousand listeners with a pool each take about 200 KiB.
pub(crate) const SOURCES_BYTES_MAX: usize = 1 << 20;
/// Files read by one start.
pub(crate) const SOURCES_MAX: usize = 256;
/// YAML nodes (scalars, lists, maps) in all files together; what bounds memory while a file is read.
pub(crate) const NODES_MAX: usize = 100_000;
/// Lists and maps inside each other; the format itself needs [`DEPTH_NEEDED`].
pub(crate) const DEPTH_MAX: usize = 32;
/// top map → pools → pool → backends → backend.
pub(crate) const DEPTH_NEEDED: usize = 5;
/// YAML aliases (`*name`) in one file.
pub(crate) const ALIASES_MAX: usize = 4_096;
/// Aliases that lead to aliases.
pub(crate) const ALIAS_DEPTH_MAX: usize = 8;
/// Problems that are shown; further ones are only counted.
pub(crate) const PROBLEMS_MAX: usize = 100;

/// Characters of a listener's or pool's name: it is a metric label and stands in every log line.
pub(crate) const NAME_CHARS_MAX: usize = 64;
/// Bytes of one value after environment variables were put in.
pub(crate) const VALUE_BYTES_MAX: usize = 4_096;
/// Bytes of a UNIX socket's path: `sun_path` of unix(7) is 108 with the closing zero.
pub(crate) const UNIX_PATH_BYTES_MAX: usize = 107;

/// Listeners of one process.
pub(crate) const LISTENERS_MAX: usize = 1_024;
/// Addresses of one listener; each costs one socket per worker.
pub(crate) const BINDS_PER_LISTENER_MAX: usize = 64;
/// Pools of one process.
pub(crate) const POOLS_MAX: usize = 4_096;
/// Backends of one pool.
pub(crate) const BACKENDS_PER_POOL_MAX: usize = 4_096;
/// Addresses to connect from, of one pool.
pub(crate) const SOURCE_ADDRESSES_MAX: usize = 64;

/// A number with a lowest and a highest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Lowest accepted.
    pub(crate) min: u64,
    /// Highest accepted.
    pub(crate) max: u64,
}

/// A duration with a lowest and a highest value, and what holds when nothing is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Lowest accepted.
    pub(crate) min: Duration,
    /// Highest accepted.
    pub(crate) max: Duration,
    /// When the key is absent.
    pub(crate) default: Duration,
}

/// Worker threads.
pub(crate) const WORKERS: Range = Range { min: 1, max: 1_024 };
/// Receive buffers of one worker; the kernel's buffer rings hold at most 32,768.
pub(crate) const BUFFER_COUNT: Range = Range { min: 16, max: 32_768 };
/// When `buffers.count` is absent.
pub(crate) const BUFFER_COUNT_DEFAULT: u16 = 1_024;
/// Bytes of one receive buffer.
pub(crate) const BUFFER_SIZE: Range = Range {
    min: 1 << 10,
    max: 1 << 20,
};
/// When `buffers.size` is absent, bytes.
pub(crate) const BUFFER_SIZE_DEFAULT: u32 = 16 << 10;
/// Bytes of all receive buffers of one worker.
pub(crate) const BUFFERS_BYTES_MAX: u64 = 1 << 30;
/// `listen(2)` takes more, but no kernel has such a queue by default.
pub(crate) const BACKLOG: Range = Range { min: 1, max: 65_535 };
/// Connections of one listener.
pub(crate) const MAX_CONNECTIONS: Range = Range { min: 1, max: 1_000_000 };
/// Backends tried for one connection.
pub(crate) const TRIES: Range = Range { min: 1, max: 16 };
/// When `tries` is absent.
pub(crate) const TRIES_DEFAULT: u8 = 3;
/// Share of a backend.
pub(crate) const WEIGHT: Range = Range { min: 1, max: 1_000 };
/// When `weight` is absent.
pub(crate) const WEIGHT_DEFAULT: u16 = 1;
/// `hash.seed`.
pub(crate) const HASH_SEED: Range = Range { min: 0, max: u64::MAX };
/// When `hash.seed` is absent. A constant, so that balancers that know nothing of each other agree.
pub(crate) const HASH_SEED_DEFAULT: u64 = 0;
/// tcp(7): MAX_TCP_KEEPCNT.
pub(crate) const KEEPALIVE_COUNT: Range = Range { min: 1, max: 127 };
/// When `tcp_keepalive.count` is absent.
pub(crate) const KEEPALIVE_COUNT_DEFAULT: u8 = 6;

const KEEPALIVE_MIN: Duration = Duration::from_secs(1);
/// tcp(7): MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, seconds.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// How long relays may finish after a stop was asked for.
pub(crate) const DRAIN_TIMEOUT: Span = Span {
    min: Duration::ZERO,
    max: DAY,
    default: Duration::from_secs(30),
};
/// Between "not ready" and "stop accepting".
pub(crate) const DRAIN_DELAY: Span = Span {
    min: Duration::ZERO,
    max: HOUR,
    default: Duration::ZERO,
};
/// From accept until routed.
pub(crate) const ROUTING_TIMEOUT: Span = Span {
    min: Duration::from_millis(100),
    max: Duration::from_secs(600),
    default: Duration::from_secs(5),
};
/// Silence in both directions. Databases keep pooled connections for days, hence the high end.
pub(crate) const IDLE_TIMEOUT: Span = Span {
    min: Duration::from_millis(100),
    max: Duration::from_secs(365 * 86_400),
    default: HOUR,
};
/// Silence after one side ended.
pub(crate) const HALF_CLOSED_TIMEOUT: Span = Span {
    min: Duration::from_millis(100),
    max: DAY,
    default: MINUTE,
};
/// Not heard of while it blocks us.
pub(crate) const DEAD_PEER_TIMEOUT: Span = Span {
    min: Duration::from_secs(1),
    max: HOUR,
    default: MINUTE,
};
/// One try to connect. The kernel itself gives up after about 127 s (tcp_syn_retries 6).
pub(crate) const CONNECT_TIMEOUT: Span = Span {
    min: Duration::from_millis(10),
    max: Duration::from_secs(120),
    default: Duration::from_secs(5),
};
/// Silence before the first keepalive probe.
pub(crate) const KEEPALIVE_IDLE: Span = Span {
    min: KEEPALIVE_MIN,
    max: KEEPALIVE_MAX,
    default: MINUTE,
};
/// Between keepalive probes.
pub(crate) const KEEPALIVE_INTERVAL: Span = Span {
    min: KEEPALIVE_MIN,
    max: KEEPALIVE_MAX,
    default: Duration::from_secs(10),
};

const fn fits(span: Span) -> bool {
    span.min.as_nanos() <= span.default.as_nanos() && span.default.as_nanos() <= span.max.as_nanos()
}

const fn holds(range: Range, default: u64) -> bool {
    range.min <= default && default <= range.max
}

// The default of every key is itself a value that the key accepts.
const _: () = assert!(fits(DRAIN_TIMEOUT) && fits(DRAIN_DELAY) && fits(ROUTING_TIMEOUT) && fits(IDLE_TIMEOUT));
const _: () = assert!(fits(HALF_CLOSED_TIMEOUT) && fits(DEAD_PEER_TIMEOUT) && fits(CONNECT_TIMEOUT));
const _: () = assert!(fits(KEEPALIVE_IDLE) && fits(KEEPALIVE_INTERVAL));
const _: () =
    assert!(holds(BUFFER_COUNT, BUFFER_COUNT_DEFAULT as u64) && holds(BUFFER_SIZE, BUFFER_SIZE_DEFAULT as u64));
const _: () = assert!(holds(TRIES, TRIES_DEFAULT as u64) && holds(WEIGHT, WEIGHT_DEFAULT as u64));
const _: () = assert!(holds(KEEPALIVE_COUNT, KEEPALIVE_COUNT_DEFAULT as u64) && holds(HASH_SEED, HASH_SEED_DEFAULT));
// Powers of two at both ends, or the range could not be written as one.
const _: () = assert!(BUFFER_COUNT.min.is_power_of_two() && BUFFER_COUNT.max.is_power_of_two());
const _: () = assert!(BUFFER_SIZE.min.is_power_of_two() && BUFFER_SIZE.max.is_power_of_two());
const _: () = assert!(BUFFER_COUNT_DEFAULT as u64 * BUFFER_SIZE_DEFAULT as u64 <= BUFFERS_BYTES_MAX);
// What checked numbers are stored in.
const _: () = assert!(WORKERS.max <= u16::MAX as u64);
const _: () = assert!(BUFFER_COUNT.max <= u16::MAX as u64);
const _: () = assert!(BUFFER_SIZE.max <= u32::MAX as u64);
const _: () = assert!(BACKLOG.max <= u32::MAX as u64);
const _: () = assert!(MAX_CONNECTIONS.max <= u32::MAX as u64);
const _: () = assert!(WEIGHT.max <= u16::MAX as u64);
const _: () = assert!(TRIES.max <= u8::MAX as u64);
const _: () = assert!(KEEPALIVE_COUNT.max <= u8::MAX as u64);
// A full pool of weighted backends (a map, two keys, two values each) fits the node limit with as much again to spare.
const _: () = assert!(2 * 5 * BACKENDS_PER_POOL_MAX <= NODES_MAX);
const _: () = assert!(DEPTH_NEEDED < DEPTH_MAX);
// A listener's name may repeat in every problem without making the report unreadable.
const _: () = assert!(NAME_CHARS_MAX <= 64);
