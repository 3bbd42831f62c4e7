//! The table of keys. What a row means is told by [`Key`].

use super::Absent::{Inner, Means, Required, Same};
use super::{Key, Place};

macro_rules! keys {
    ($($place:ident { $($name:literal $(or $alias:literal)*, $takes:literal, $absent:expr, $meaning:literal;)+ })+) => {
        /// Every key.
        pub(super) const KEYS: &[Key] = &[$($(Key {
            place: Place::$place,
            name: $name,
            aliases: &[$($alias),*],
            takes: $takes,
            absent: $absent,
            meaning: $meaning,
        },)+)+];
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
        "max_unrouted", "1 to 1000000", Means("half of the connections that the descriptor limit allows"),
            "Connections of which it is not known yet where they go (PROXY header, TLS hello), over all workers. Beyond it \
             the oldest of them are reset, so that whoever says nothing keeps nobody out.";
        "session_log", "`off`, `stderr`, a path, or a map", Same("off"),
            "Where a line for each finished session goes. A path alone has a `/` in it.";
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
    SessionLog {
        "to", "`stderr`, or a path", Required,
            "Where lines go. A file is appended to, and opened anew when it was moved away.";
        "format", "`json`, `text`", Same("json"),
            "One JSON object per line, or `key=value` pairs.";
    }
    Listener {
        "bind", "`ADDRESS:PORT`, `ADDRESS:PORT-PORT`, `unix:PATH`, or a list of these", Required,
            "Where it listens. IPv6 addresses stand in brackets. `*:PORT` and `:PORT` mean `0.0.0.0:PORT`, every IPv4 \
             address; `[::]:PORT` is every IPv6 address and nothing else. A range has at most 1,024 ports.";
        "protocol", "`tcp`, `udp`, `tls`", Required,
            "What it speaks. Some keys belong to one of them. `tls` passes TLS through, to where the client's hello says.";
        "pool", "a pool's name", Required,
            "Where its connections go. Not with `protocol: tls`, which has `routes` and `fallback`.";
        "routes", "a list of maps", Means("none"),
            "TLS: where connections go, by what the hello asks for. The most specific route wins, whatever the order: a \
             name before a wildcard, a longer wildcard before a shorter one, a protocol before none.";
        "fallback", "`close`, or a pool's name", Same("close"),
            "TLS: where a connection goes whose hello can be read and matches no route. One that cannot be read is always \
             closed.";
        "hello_max", "1KiB to 64KiB", Same("16KiB"),
            "TLS: the longest hello. Those with post-quantum keys have about 2KiB.";
        "starttls", "`postgres`", Means("TLS from the first byte"),
            "TLS: answers a PostgreSQL client that asks for TLS, then routes by its hello. Clients that begin with TLS at \
             once are routed as well; those that want none are sent to `fallback`.";
        "protocol_hint", "`postgres`", Means("bytes are not looked at"),
            "TCP: a PostgreSQL client without TLS that cancels a query is sent to the server that runs it.";
        "proxy_protocol", "a map, or `off`", Same("off"),
            "Connections come from a balancer in front, which says in a PROXY header who the client is. That address \
             counts from then on: for balancing, limits, logs.";
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
        "max_connections_per_client", "1 to 1000000", Means("no limit"),
            "Connections of one client address (of IPv6: of one /64) at the same time, over all workers. What is beyond is \
             refused: closed by reset as soon as it is accepted.";
        "connection_rate", "1/m to 1000000/m, or 1/s to 1000000/s", Means("no limit"),
            "Connections of one client address (of IPv6: of one /64) per second or minute, over all workers; what is \
             beyond is refused. A tenth of it may come at once.";
        "allow", "`ADDRESS/PREFIX`, an address, or a list of these", Means("everyone"),
            "Networks that clients may come from; all others are refused. UDP: they open no session.";
        "deny", "`ADDRESS/PREFIX`, an address, or a list of these", Means("nobody"),
            "Of those, networks that clients may not come from. Where both match, the longer prefix wins, and `deny` when \
             they are as long.";
        "affinity_group", "a name", Means("none"),
            "All listeners of a group, TCP and UDP, send a client to the same host, by its address: rendezvous hashing \
             over the hosts of their pools, which should be the same ones.";
        "session_timeout" or "udp_timeout", "100ms to 1d", Same("1m"),
            "UDP: a session without a datagram in either direction for this long ends.";
        "unanswered_timeout", "100ms to 1d, at most `session_timeout`", Same("5s"),
            "UDP: the same until the backend has answered.";
        "max_sessions", "1 to 1000000, at least one per worker", Means("what descriptors and ports allow, at most 65536"),
            "UDP: sessions at the same time, over all workers. What would open another one is dropped.";
        "max_sessions_per_client", "1 to 1000000", Means("no limit"),
            "UDP: sessions of one client address at the same time, over all workers.";
        "rate", "1/s to 10000000/s", Means("no limit"),
            "UDP: datagrams of one client address; what is beyond is dropped. A tenth of it may come at once.";
        "requests", "1 to 1000000", Means("no limit"),
            "UDP: datagrams of the client after which its next one opens a session of its own.";
        "responses", "1 to 1000000", Means("no limit"),
            "UDP: answers to each datagram of the client after which the session ends. 1 for DNS.";
        "affinity", "`session`, `client_ip`, `none`", Same("session"),
            "UDP: what stays at one backend: an address with its port, an address with all its ports, or nothing.";
        "keep_port", "`true`, `false`", Same("false"),
            "UDP: datagrams go to the port of the backend that they came to here, not to the backend's own, which is \
             probed. For ranges of ports.";
        "receive_buffer", "64KiB to 256MiB, a power of two", Same("1MiB"),
            "UDP: what the kernel keeps for each socket until it is taken, its own accounting included.";
    }
    Route {
        "sni", "a name, `*.NAME`, `*`, or a list", Means("any hello, with a name or without"),
            "Names that the client asks for. `*.NAME` is every name below NAME, with any number of labels; `*` is any name. \
             Case and a dot at the end do not matter.";
        "alpn", "a protocol, or a list", Means("any"),
            "Protocols of which the client offers at least one, such as `h2`. Of several that routes are for, the client's \
             first one counts.";
        "pool", "a pool's name", Required,
            "Where these connections go.";
    }
    ProxyProtocol {
        "accept", "`v1`, `v2`, or both as a list", Means("both"),
            "Versions that are understood. Version 1 is a line of text, version 2 is binary.";
        "from", "an address, a network such as `10.0.0.0/8`, or a list", Required,
            "Who is believed. Connections from elsewhere are closed, datagrams dropped. Whoever may connect to a UNIX socket is \
             believed.";
        "per", "`session`, `datagram`", Same("session"),
            "UDP: where the balancer puts a header, which must be of version 2. `session`: in front of the first datagram \
             that comes from one of its ports. `datagram`: in front of each, so that datagrams from one port may be of many \
             clients; dnsdist does so.";
    }
    Pool {
        "balance",
            "`round_robin`, `least_connections`, `least_response_time`, `least_bandwidth`, `ip_hash`, `random`",
            Same("round_robin"),
            "How a backend is chosen; weights apply to all. Also understood: `weighted_round_robin` for `round_robin`; \
             `leastconn` and `least_conn` for `least_connections`; `least_time` and `ewma` for `least_response_time`; \
             `source` for `ip_hash`; `random_two_choices` for `random`.";
        "hash", "a map", Inner,
            "How `ip_hash` maps clients to backends.";
        "connect_timeout", "10ms to 2m", Same("5s"),
            "For one try.";
        "tries", "1 to 16", Same("3"),
            "Backends tried for one connection.";
        "source", "an IP address, a list, or `client`", Means("the kernel's choice"),
            "Addresses to connect from. Several widen the range of ports. `client`: the client's own address, so that \
             backends see it; needs a capability, a rule and a route \
             ([how](how-to-transparent-source.md)).";
        "send_proxy", "`off`, `v1`, `v2`, or a map", Same("off"),
            "Backends are told in a PROXY header who the client is. They must expect it.";
        "tcp_keepalive", "a map", Inner,
            "Keepalive probes towards backends.";
        "dead_peer_timeout", "1s to 1h", Same("1m"),
            "A backend that blocks the relay and is not heard of for this long is reset.";
        "queue", "a map, or `off`", Same("off"),
            "Where connections wait while every usable backend has reached its `max_connections`. Without it they are \
             reset.";
        "health_check", "a map, a protocol, or `off`", Same("off"),
            "Active probes. A protocol alone, as in `health_check: tcp`, leaves everything else at its default.";
        "passive", "a map, or `off`", Inner,
            "Judgement by what connections meet: backends that cannot be connected are left out for a while.";
        "slow_start", "`off`, or 1s to 1h", Same("off"),
            "A backend that comes up starts with a small share that grows to its whole weight over this time. Not with \
             `balance: ip_hash`, where clients would move twice.";
        "silence", "`off`, or 100ms to 1h", Same("off"),
            "UDP: a backend that does not answer for this long while a client sends to it has failed for that client, as \
             if its host had said that nobody listens. Not for protocols without answers.";
        "fail_open", "`true`, `false`", Same("false"),
            "With no backend left that is well, all are used instead of none.";
        "on_backend_down", "`keep`, `close`, `move`", Means("`move` where a UDP listener feeds the pool, else `keep`"),
            "What becomes of open sessions when their backend goes down. `keep`: they go on for as long as it answers \
             them. `close`: they are closed, so that clients connect anew and reach another one.";
        "failback", "`auto`, `manual`", Same("auto"),
            "When other backends are well again while backups serve. `auto`: new connections go to them at once, and \
             sessions on backups are closed over a minute, unless `max_lifetime` moves them. `manual`: backups serve \
             until none of them is well.";
        "max_lifetime", "`off`, or 1s to 365d", Same("off"),
            "A session older than this, give or take 10 %, is ended, so that clients with pooled connections come to \
             backends that are new.";
        "resolve", "a map", Inner,
            "How names among the backends are looked up.";
        "backends", "a list of addresses, names or maps", Required,
            "What is chosen from. Each entry is `ADDRESS:PORT`, `NAME:PORT`, `srv:NAME`, `unix:PATH`, or a map with the \
             keys below.";
    }
    SendProxy {
        "version", "`v1`, `v2`", Required,
            "Version 1 is a line of text, version 2 is binary and carries what is below.";
        "tlvs", "`sni`, `alpn`, `unique_id`, or a list", Means("none"),
            "What else is told: the name that the client asked for, the first protocol it offered, a name of the \
             connection that no other one has (also in the session log, as `id`).";
        "checksum", "`true`, `false`", Same("false"),
            "With a CRC32c of the header.";
        "per", "`session`, `datagram`", Same("session"),
            "UDP: in front of a session's first datagram, or of each.";
    }
    Hash {
        "algorithm", "`rendezvous`, `maglev`", Same("rendezvous"),
            "`rendezvous`: a lost backend moves only its own clients. `maglev`: constant time whatever the size of the pool.";
        "seed", "0 to 18446744073709551615", Same("0"),
            "Balancers that shall agree on every client use the same seed.";
        "max_load", "`off`, or 1.01 to 100, at most two decimals", Same("off"),
            "Bounded load: no backend has more than this many times its fair share of the pool's connections. A client \
             whose backend is full goes to its next one.";
    }
    Queue {
        "max", "1 to 1000000", Required,
            "Connections that wait at the same time, over all workers. Who comes then is reset.";
        "timeout", "10ms to 10m", Same("5s"),
            "The longest wait. Who has waited for this long is reset.";
    }
    HealthCheck {
        "protocol" or "type",
            "`tcp`, `http`, `https`, `tls`, `send_expect`, `udp`, `dns`, `a2s`, `quake3`", Same("tcp"),
            "What a probe speaks. `tcp`: connecting succeeds and the backend does not hang up at once. `tls`: a \
             handshake succeeds as well. `http`, `https`: a request is answered as expected. `send_expect`: bytes are. \
             `udp`: a datagram is; `dns`, `a2s` (Valve) and `quake3` send one that such servers answer.";
        "port", "1 to 65535", Means("the backend's"),
            "Another port to probe.";
        "interval" or "inter", "200ms to 1h", Same("5s"),
            "From the start of one probe to the start of the next, give or take 10 %; at most 1s while results change. \
             A probe that takes longer delays the next one.";
        "timeout", "10ms to 1m", Same("2s"),
            "For one probe in all: connecting, TLS, the answer. It may be longer than `interval`.";
        "fails" or "fall" or "unhealthy_threshold", "1 to 100", Same("3"),
            "Failures in a row that make a backend down.";
        "passes" or "rise" or "healthy_threshold", "1 to 100", Same("2"),
            "Passes in a row that make it up again.";
        "method", "`GET`, `HEAD`, `OPTIONS`", Same("GET"),
            "Of the request. With `http` and `https` only, like the four keys below.";
        "path", "a path with its query", Same("/"),
            "What is asked for. It begins with `/` and has neither spaces nor control characters.";
        "host", "a name, or a name and a port", Means("the backend's name or address"),
            "The header `Host`.";
        "status", "a code, a range such as `200-399`, or a list", Same("200-399"),
            "Status codes that are well, from 100 up and below 600. Redirects are not followed.";
        "body", "a text", Means("not looked at"),
            "The first 64KiB of the body must contain it.";
        "send", "bytes", Means("nothing"),
            "Sent after connecting; without it the backend speaks first. With `send_expect` only, like `expect`; at \
             least one of the two. `\\r`, `\\n`, `\\t`, `\\\\` and `\\xHH` stand for bytes; `hex:ff ff` is a \
             dump. At most 4KiB.";
        "expect", "bytes", Means("any byte"),
            "The first 16KiB of the answer must contain it. Written like `send`.";
        "tls", "a map, or `true`", Means("as below; with `send_expect`: without TLS"),
            "How TLS is spoken, with `https` and `tls`. With `send_expect` it means that TLS is spoken.";
    }
    ProbeTls {
        "server_name", "a name", Means("the backend's name or address"),
            "Sent as SNI (addresses are not), and what the certificate must be valid for.";
        "verify", "`true`, `false`", Same("false"),
            "Whether the certificate must be valid. A probe asks whether the backend lives, so by default any will do.";
        "ca", "a path", Means("the authorities of the system"),
            "PEM file of the authorities to trust, with `verify: true`.";
    }
    Passive {
        "fails", "1 to 100", Same("1"),
            "Failed connects in a row after which a backend is ejected.";
        "eject", "100ms to 10m", Same("1s"),
            "How long, the first time. The n-th time in a row lasts n times as long, up to 30s (or this, if it is longer).";
        "max_ejected", "0 to 100, with or without `%`", Same("50%"),
            "Of the pool's backends, at most this many percent are out at once, those that are down included; beyond it none is ejected.";
    }
    Resolve {
        "servers", "`ADDRESS`, `ADDRESS:PORT`, or a list", Means("those of /etc/resolv.conf"),
            "DNS servers to ask.";
        "min_interval", "1s to 1h", Same("1s"),
            "DNS is asked again when an answer's time to live is over, but not sooner than this.";
        "max_interval", "1s to 1d", Same("1m"),
            "And not later than this.";
    }
    Backend {
        "address", "`ADDRESS:PORT`, `NAME:PORT`, `srv:NAME`, `unix:PATH`", Required,
            "Where it listens. A name stands for every address that DNS gives for it: A and AAAA records with this port, \
             or, with `srv:`, SRV records, which bring ports of their own.";
        "weight", "1 to 1000", Same("1"),
            "Its share, relative to the other backends of the pool; of a name, the share of each address.";
        "max_connections", "1 to 1000000", Means("no limit"),
            "Connections open at the same time, over all workers; of a name, for each address.";
        "backup", "`true`, `false`", Same("false"),
            "Used only while no other backend of the pool is usable.";
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
