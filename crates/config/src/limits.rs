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
/// top map → pools → pool → backends → backend, or health_check → tls.
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
/// Ports of one range of them; each costs one socket per worker.
pub(crate) const PORTS_PER_RANGE: Range = Range { min: 1, max: 1_024 };
/// Pools of one process.
pub(crate) const POOLS_MAX: usize = 4_096;
/// Backends of one pool.
pub(crate) const BACKENDS_PER_POOL_MAX: usize = 4_096;
/// Addresses to connect from, of one pool.
pub(crate) const SOURCE_ADDRESSES_MAX: usize = 64;
/// DNS servers of one pool; an answer is as good from the first as from the ninth.
pub(crate) const RESOLVE_SERVERS_MAX: usize = 8;
/// Networks of one `allow` or `deny`. The list of a whole country fits.
pub(crate) const NETWORKS_MAX: usize = 10_000;
/// Status codes and ranges of them in one `health_check.status`.
pub(crate) const STATUSES_MAX: usize = 64;
/// Bytes of a DNS name without a dot at its end (RFC 1035: 255 on the wire, with two lengths more than dots).
pub(crate) const HOST_BYTES_MAX: usize = 253;
/// Bytes of one label of a DNS name (RFC 1035).
pub(crate) const LABEL_BYTES_MAX: usize = 63;
/// Bytes to send or to expect in a probe. Decoding escapes never makes a text longer.
pub(crate) const PROBE_BYTES_MAX: usize = 4 << 10;

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

/// A duration with a lowest and a highest value that is off when nothing is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Lowest accepted.
    pub(crate) min: Duration,
    /// Highest accepted.
    pub(crate) max: Duration,
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
/// Connections of one listener, and of one backend.
pub(crate) const MAX_CONNECTIONS: Range = Range { min: 1, max: 1_000_000 };
/// Datagrams of a client that a UDP session takes, and answers to each of them.
pub(crate) const DATAGRAMS: Range = Range { min: 1, max: 1_000_000 };
/// Datagrams of one client address in a second.
pub(crate) const RATE: Range = Range {
    min: 1,
    max: 10_000_000,
};
/// Connections of one client address in a second, or in a minute.
pub(crate) const CONNECTION_RATE: Range = Range { min: 1, max: 1_000_000 };
/// What the kernel keeps for a UDP socket, bytes.
pub(crate) const RECEIVE_BUFFER: Range = Range {
    min: 64 << 10,
    max: 256 << 20,
};
/// When `receive_buffer` is absent, bytes.
pub(crate) const RECEIVE_BUFFER_DEFAULT: u32 = 1 << 20;
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
/// `hash.max_load` in percent of a fair share. At 100 nobody could take the connection that does not divide evenly.
pub(crate) const HASH_MAX_LOAD: Range = Range { min: 101, max: 10_000 };
/// Connections that wait for a backend with room.
pub(crate) const QUEUE_MAX: Range = Range { min: 1, max: 1_000_000 };
/// TCP ports; 0 is none.
pub(crate) const PORT: Range = Range { min: 1, max: 65_535 };
/// HTTP status codes that a probe may call well (RFC 9110 section 15).
pub(crate) const STATUS: Range = Range { min: 100, max: 599 };
/// When `health_check.status` is absent.
pub(crate) const STATUS_DEFAULT: (u16, u16) = (200, 399);
/// Failed probes in a row that make a backend down.
pub(crate) const HEALTH_FAILS: Range = Range { min: 1, max: 100 };
/// When `health_check.fails` is absent.
pub(crate) const HEALTH_FAILS_DEFAULT: u32 = 3;
/// Passed probes in a row that make a backend up again.
pub(crate) const HEALTH_PASSES: Range = Range { min: 1, max: 100 };
/// When `health_check.passes` is absent.
pub(crate) const HEALTH_PASSES_DEFAULT: u32 = 2;
/// Failed connects in a row that eject a backend.
pub(crate) const PASSIVE_FAILS: Range = Range { min: 1, max: 100 };
/// When `passive.fails` is absent.
pub(crate) const PASSIVE_FAILS_DEFAULT: u32 = 1;
/// Percent of a pool that may be ejected at once.
pub(crate) const MAX_EJECTED: Range = Range { min: 0, max: 100 };
/// When `passive.max_ejected` is absent.
pub(crate) const MAX_EJECTED_DEFAULT: u8 = 50;
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
/// Routes of one listener.
pub(crate) const ROUTES_MAX: usize = 4_096;
/// Names or protocols of one entry.
pub(crate) const NAMES_PER_ROUTE_MAX: usize = 256;
/// The longest TLS hello, bytes.
pub(crate) const HELLO_MAX: Range = Range {
    min: 1 << 10,
    max: 64 << 10,
};
/// RFC 8446 allows a message of 16 MiB; what clients send is below 2 KiB, with large tickets and keys below 16.
pub(crate) const HELLO_MAX_DEFAULT: u32 = 16 << 10;
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
/// Silence in both directions of a UDP session. Games and calls speak all the time; NAT routers forget after 30 s to 2 min.
pub(crate) const SESSION_TIMEOUT: Span = Span {
    min: Duration::from_millis(100),
    max: DAY,
    default: MINUTE,
};
/// The same until the backend has answered.
pub(crate) const UNANSWERED_TIMEOUT: Span = Span {
    min: Duration::from_millis(100),
    max: DAY,
    default: Duration::from_secs(5),
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
/// Waiting for a backend with room. Clients rarely have more patience than the default.
pub(crate) const QUEUE_TIMEOUT: Span = Span {
    min: Duration::from_millis(10),
    max: Duration::from_secs(600),
    default: Duration::from_secs(5),
};
/// From the start of one health probe to the start of the next.
pub(crate) const HEALTH_INTERVAL: Span = Span {
    min: Duration::from_millis(200),
    max: HOUR,
    default: Duration::from_secs(5),
};
/// One health probe in all.
pub(crate) const HEALTH_TIMEOUT: Span = Span {
    min: Duration::from_millis(10),
    max: MINUTE,
    default: Duration::from_secs(2),
};
/// The first ejection of a backend.
pub(crate) const EJECT: Span = Span {
    min: Duration::from_millis(100),
    max: Duration::from_secs(600),
    default: Duration::from_secs(1),
};
/// Until a backend that came up has its whole share.
pub(crate) const SLOW_START: Limits = Limits {
    min: Duration::from_secs(1),
    max: HOUR,
};
/// Of a backend while a client sends.
pub(crate) const SILENCE: Limits = Limits {
    min: Duration::from_millis(100),
    max: HOUR,
};
/// Age at which a session is ended; the high end is that of `idle_timeout`.
pub(crate) const MAX_LIFETIME: Limits = Limits {
    min: Duration::from_secs(1),
    max: IDLE_TIMEOUT.max,
};
/// The soonest that DNS is asked again.
pub(crate) const RESOLVE_MIN: Span = Span {
    min: Duration::from_secs(1),
    max: HOUR,
    default: Duration::from_secs(1),
};
/// The latest that DNS is asked again.
pub(crate) const RESOLVE_MAX: Span = Span {
    min: Duration::from_secs(1),
    max: DAY,
    default: MINUTE,
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
const _: () = assert!(fits(QUEUE_TIMEOUT) && fits(HEALTH_INTERVAL) && fits(HEALTH_TIMEOUT) && fits(EJECT));
const _: () = assert!(fits(RESOLVE_MIN) && fits(RESOLVE_MAX));
const _: () = assert!(fits(SESSION_TIMEOUT) && fits(UNANSWERED_TIMEOUT));
const _: () = assert!(holds(RECEIVE_BUFFER, RECEIVE_BUFFER_DEFAULT as u64));
const _: () = assert!(holds(HELLO_MAX, HELLO_MAX_DEFAULT as u64) && HELLO_MAX.max <= u32::MAX as u64);
const _: () = assert!(RECEIVE_BUFFER.min.is_power_of_two() && RECEIVE_BUFFER.max.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFER.max <= i32::MAX as u64 && DATAGRAMS.max <= u32::MAX as u64);
const _: () =
    assert!(holds(BUFFER_COUNT, BUFFER_COUNT_DEFAULT as u64) && holds(BUFFER_SIZE, BUFFER_SIZE_DEFAULT as u64));
const _: () = assert!(holds(TRIES, TRIES_DEFAULT as u64) && holds(WEIGHT, WEIGHT_DEFAULT as u64));
const _: () = assert!(holds(KEEPALIVE_COUNT, KEEPALIVE_COUNT_DEFAULT as u64) && holds(HASH_SEED, HASH_SEED_DEFAULT));
const _: () = assert!(holds(HEALTH_FAILS, HEALTH_FAILS_DEFAULT as u64));
const _: () = assert!(holds(HEALTH_PASSES, HEALTH_PASSES_DEFAULT as u64));
const _: () = assert!(holds(PASSIVE_FAILS, PASSIVE_FAILS_DEFAULT as u64));
const _: () = assert!(holds(MAX_EJECTED, MAX_EJECTED_DEFAULT as u64));
const _: () = assert!(holds(STATUS, STATUS_DEFAULT.0 as u64) && holds(STATUS, STATUS_DEFAULT.1 as u64));
const _: () = assert!(STATUS_DEFAULT.0 <= STATUS_DEFAULT.1);
// With the defaults a probe is over when the next one is due, and the soonest question to DNS is not after the latest.
const _: () = assert!(HEALTH_TIMEOUT.default.as_nanos() <= HEALTH_INTERVAL.default.as_nanos());
const _: () = assert!(RESOLVE_MIN.default.as_nanos() <= RESOLVE_MAX.default.as_nanos());
// Every shortest time between questions can be written together with a longest one.
const _: () = assert!(RESOLVE_MIN.max.as_nanos() <= RESOLVE_MAX.max.as_nanos());
// Whoever waits counts as a connection of the listener: a longer line could never fill.
const _: () = assert!(QUEUE_MAX.max <= MAX_CONNECTIONS.max);
// A bound below a fair share would leave connections without a backend.
const _: () = assert!(HASH_MAX_LOAD.min > 100);
const _: () = assert!(MAX_EJECTED.max == 100);
// What is written for a probe fits into one value, and what it is decoded to is not longer.
const _: () = assert!(VALUE_BYTES_MAX <= PROBE_BYTES_MAX);
const _: () = assert!(LABEL_BYTES_MAX < HOST_BYTES_MAX && HOST_BYTES_MAX < VALUE_BYTES_MAX);
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
const _: () = assert!(CONNECTION_RATE.max <= u32::MAX as u64);
const _: () = assert!(WEIGHT.max <= u16::MAX as u64);
const _: () = assert!(TRIES.max <= u8::MAX as u64);
const _: () = assert!(KEEPALIVE_COUNT.max <= u8::MAX as u64);
const _: () = assert!(HASH_MAX_LOAD.max <= u16::MAX as u64);
const _: () = assert!(QUEUE_MAX.max <= u32::MAX as u64);
const _: () = assert!(PORT.max <= u16::MAX as u64);
const _: () = assert!(STATUS.max <= u16::MAX as u64);
const _: () = assert!(HEALTH_FAILS.max <= u32::MAX as u64 && HEALTH_PASSES.max <= u32::MAX as u64);
const _: () = assert!(PASSIVE_FAILS.max <= u32::MAX as u64 && MAX_EJECTED.max <= u8::MAX as u64);
// A full pool of backends with every key (a map, four keys, four values each) fits the node limit twice.
const _: () = assert!(2 * 9 * BACKENDS_PER_POOL_MAX <= NODES_MAX);
const _: () = assert!(DEPTH_NEEDED < DEPTH_MAX);
// Both lists of one listener fit, and those of some others.
const _: () = assert!(4 * NETWORKS_MAX <= NODES_MAX);
// A listener's name may repeat in every problem without making the report unreadable.
const _: () = assert!(NAME_CHARS_MAX <= 64);
