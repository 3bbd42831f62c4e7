//! The configuration of one test, written as YAML.

use crate::address::{Address, free_v4};
use std::net::SocketAddr;

/// A configuration under construction; keys are added to the listener or pool named last.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the admin port is to listen.
    pub admin: SocketAddr,
    top: Vec<(String, String)>,
    listeners: Vec<ListenerPart>,
    pools: Vec<PoolPart>,
    verbatim: Option<String>,
}

#[derive(Clone, Debug)]
struct ListenerPart {
    name: String,
    bind: Address,
    protocol: &'static str,
    /// Empty: routes name the pools.
    pool: String,
    keys: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct PoolPart {
    name: String,
    balance: String,
    /// With keys of their own, as a map's inside.
    backends: Vec<(Address, String)>,
    keys: Vec<(String, String)>,
}

impl Setup {
    /// Nothing but an admin port.
    pub fn new() -> Self {
        let Address::Inet(admin) = free_v4() else {
            unreachable!("free_v4 gives a port")
        };
        Self {
            admin,
            top: Vec::new(),
            listeners: Vec::new(),
            pools: Vec::new(),
            verbatim: None,
        }
    }

    /// Listeners and pools as somebody wrote them, beside an admin port and two workers; nothing is added to them.
    pub fn verbatim(listeners_and_pools: &str) -> Self {
        let mut setup = Self::new().top("workers", "2");
        setup.verbatim = Some(listeners_and_pools.to_owned());
        setup
    }

    /// Listener `front` on a free port of 127.0.0.1, pool `pool` with these backends, two workers; and the port.
    pub fn simple(balance: &str, backends: &[&Address]) -> (Self, Address) {
        let front = free_v4();
        let setup = Self::new()
            .top("workers", "2")
            .listener("front", &front, "pool")
            .pool("pool", balance, backends);
        (setup, front)
    }

    /// Adds a key at the top.
    pub fn top(mut self, key: &str, value: &str) -> Self {
        self.top.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a TCP listener.
    pub fn listener(self, name: &str, bind: &Address, pool: &str) -> Self {
        self.listener_of("tcp", name, bind, pool)
    }

    /// Adds a UDP listener.
    pub fn udp_listener(self, name: &str, bind: &Address, pool: &str) -> Self {
        self.listener_of("udp", name, bind, pool)
    }

    /// Adds a listener that passes TLS through; its routes as maps: `{ sni: a.example, pool: a }`.
    pub fn tls_listener(self, name: &str, bind: &Address, routes: &[&str]) -> Self {
        let setup = self.listener_of("tls", name, bind, "");
        setup.listener_key("routes", &format!("[{}]", routes.join(", ")))
    }

    fn listener_of(mut self, protocol: &'static str, name: &str, bind: &Address, pool: &str) -> Self {
        let (name, pool) = (name.to_owned(), pool.to_owned());
        self.listeners.push(ListenerPart {
            name,
            bind: bind.clone(),
            protocol,
            pool,
            keys: Vec::new(),
        });
        self
    }

    /// Adds a key to the last listener.
    pub fn listener_key(mut self, key: &str, value: &str) -> Self {
        let listener = self.listeners.last_mut().expect("a listener was added before its key");
        listener.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a pool.
    pub fn pool(mut self, name: &str, balance: &str, backends: &[&Address]) -> Self {
        let backends = backends
            .iter()
            .map(|&address| (address.clone(), String::new()))
            .collect();
        let (name, balance) = (name.to_owned(), balance.to_owned());
        self.pools.push(PoolPart {
            name,
            balance,
            backends,
            keys: Vec::new(),
        });
        self
    }

    /// Adds a backend with keys of its own to the last pool: `backup: true`.
    pub fn backend(mut self, address: &Address, keys: &str) -> Self {
        let pool = self.pools.last_mut().expect("a pool was added before its backend");
        pool.backends.push((address.clone(), format!(", {keys}")));
        self
    }

    /// Adds a key to the last pool.
    pub fn pool_key(mut self, key: &str, value: &str) -> Self {
        let pool = self.pools.last_mut().expect("a pool was added before its key");
        pool.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Weights for the backends of the last pool.
    pub fn pool_weights(mut self, weights: &[u16]) -> Self {
        let pool = self.pools.last_mut().expect("a pool was added before its weights");
        assert_eq!(pool.backends.len(), weights.len(), "a weight for each backend");
        for ((_, keys), weight) in pool.backends.iter_mut().zip(weights) {
            keys.push_str(&format!(", weight: {weight}"));
        }
        self
    }

    /// The file.
    pub fn yaml(&self) -> String {
        let mut lines = vec![format!("admin: {{ bind: \"{}\" }}", self.admin)];
        lines.extend(self.top.iter().map(|(key, value)| format!("{key}: {value}")));
        if let Some(text) = &self.verbatim {
            lines.push(text.clone());
            return lines.join("\n") + "\n";
        }
        lines.push("listeners:".to_owned());
        for listener in &self.listeners {
            lines.push(format!("  {}:", listener.name));
            lines.push(format!("    bind: \"{}\"", listener.bind));
            lines.push(format!("    protocol: {}", listener.protocol));
            if !listener.pool.is_empty() {
                lines.push(format!("    pool: {}", listener.pool));
            }
            lines.extend(listener.keys.iter().map(|(key, value)| format!("    {key}: {value}")));
        }
        lines.push("pools:".to_owned());
        for pool in &self.pools {
            lines.push(format!("  {}:", pool.name));
            lines.push(format!("    balance: {}", pool.balance));
            lines.extend(pool.keys.iter().map(|(key, value)| format!("    {key}: {value}")));
            lines.push("    backends:".to_owned());
            let backend = |(address, keys): &(Address, String)| format!("      - {{ address: \"{address}\"{keys} }}");
            lines.extend(pool.backends.iter().map(backend));
        }
        lines.join("\n") + "\n"
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}
