//! The same listeners and pools for HAProxy, so that load, checks and oracles can be tried on another balancer.
//!
//! Only what both can say is translated; there are no metrics, so [`crate::ringway::Ringway`] skips what needs them.

use crate::setup::Setup;
use std::fmt::Write;

/// Whether `RINGWAY_TEST_STANDIN=haproxy` was asked for.
pub fn wanted() -> bool {
    std::env::var("RINGWAY_TEST_STANDIN").is_ok_and(|name| name == "haproxy")
}

/// The configuration as HAProxy wants it.
pub fn haproxy(setup: &Setup) -> String {
    let find = |keys: &[(String, String)], key: &str, default: &str| {
        keys.iter()
            .find(|(own, _)| own == key)
            .map_or(default.to_owned(), |(_, value)| value.clone())
    };
    let workers = find(&setup.top, "workers", "2");
    let mut text = format!(
        "global\n nbthread {workers}\n hard-stop-after {}\ndefaults\n mode tcp\n retries 3\n option redispatch 1\n \
         timeout client-fin 60s\n timeout server-fin 60s\n maxconn 9500\n\
         frontend admin\n bind {}\n mode http\n timeout client 5s\n monitor-uri /health/ready\n",
        find(&setup.top, "drain_timeout", "30s"),
        setup.admin
    );
    if setup
        .listeners
        .iter()
        .any(|l| l.keys.iter().any(|(k, _)| k == "tcp_keepalive"))
    {
        text = text.replace("mode tcp", "mode tcp\n option clitcpka\n option srvtcpka\n clitcpka-idle 1s\n clitcpka-intvl 1s\n clitcpka-cnt 2\n srvtcpka-idle 1s\n srvtcpka-intvl 1s\n srvtcpka-cnt 2");
    }
    for listener in &setup.listeners {
        let idle = find(&listener.keys, "idle_timeout", "1h");
        let fin = find(&listener.keys, "half_closed_timeout", "60s");
        let bind = listener.bind.to_string().replace("unix:", "unix@");
        let most = find(&listener.keys, "max_connections", "9500");
        let _ = writeln!(
            text,
            "frontend {}\n bind {bind} backlog 4096\n maxconn {most}\n timeout client {idle}\n timeout client-fin {fin}\n default_backend {}",
            listener.name, listener.pool
        );
    }
    for pool in &setup.pools {
        let balance = match pool.balance.as_str() {
            "least_connections" => "leastconn",
            "ip_hash" => "source\n hash-type consistent",
            _ => "roundrobin",
        };
        let connect = find(&pool.keys, "connect_timeout", "5s");
        let _ = writeln!(
            text,
            "backend {}\n balance {balance}\n timeout connect {connect}\n timeout server 1h",
            pool.name
        );
        for (index, backend) in pool.backends.iter().enumerate() {
            let _ = writeln!(
                text,
                " server s{index} {}",
                backend.to_string().replace("unix:", "unix@")
            );
        }
    }
    text
}
