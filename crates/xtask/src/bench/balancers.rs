//! The balancers that are compared: how each is configured and started, and when it is ready.
//!
//! All get the same four listeners of TCP with one backend each, those that can one of UDP, and those that can one of TLS
//! that leads each of three server names to a backend of its own. One worker on one core, and buffers of 64 KiB where they
//! have the choice. Ringway alone checks its backends' health every second and has its metrics read, so that its figures
//! hold for how it is run. A balancer must never be started with anything its own manual would not recommend for this.

use super::guard::Child;
use super::load::Backends;
use super::scrape::{self, Scraper};
use super::{host, load};
use crate::tools;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One column of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Balancer {
    Ringway,
    Haproxy,
    Nginx,
    /// Compared where it is installed, and for UDP only.
    Sozu,
    /// The plainest relay on tokio-uring.
    Naive,
    /// No balancer: load and backend alone.
    Direct,
}

impl Balancer {
    pub(super) const ALL: [Self; 6] = [
        Self::Ringway,
        Self::Haproxy,
        Self::Nginx,
        Self::Sozu,
        Self::Naive,
        Self::Direct,
    ];

    /// Whether a run is complete without it.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::Sozu)
    }

    /// Whether it can be started here; of those that are not optional this is found out when they are.
    pub(super) fn is_there(self) -> bool {
        !self.is_optional() || tools::find(self.option()).is_some()
    }

    /// Whether it reads a ClientHello and chooses by the name in it.
    pub(super) const fn routes_by_name(self) -> bool {
        matches!(self, Self::Ringway | Self::Haproxy | Self::Nginx)
    }

    /// In options and in the JSON.
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Sozu => "sozu",
            Self::Naive => "naive",
            Self::Direct => "direct",
        }
    }

    /// In tables and plots.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ringway => "Ringway",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Sozu => "Sōzu",
            Self::Naive => "naive tokio-uring",
            Self::Direct => "direct",
        }
    }
}

/// Where the services listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Services {
    pub(super) http: SocketAddr,
    pub(super) echo: SocketAddr,
    pub(super) short: SocketAddr,
    pub(super) iperf: SocketAddr,
    pub(super) udp: SocketAddr,
    /// Routes by server name; nobody listens where a balancer cannot.
    pub(super) tls: SocketAddr,
    /// Routes by server name to a backend that keeps its connections; Ringway only.
    pub(super) routed: SocketAddr,
    /// Leads to the same backend without looking; Ringway only.
    pub(super) plain: SocketAddr,
}

impl Services {
    fn named(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("http", self.http),
            ("echo", self.echo),
            ("short", self.short),
            ("iperf", self.iperf),
        ]
    }
}

/// A balancer and the ports that it will take.
pub(super) struct Plan {
    balancer: Balancer,
    /// Where Ringway writes its session log.
    session_log: Option<PathBuf>,
}

impl Plan {
    pub(super) fn fresh(balancer: Balancer) -> Self {
        Self {
            balancer,
            session_log: None,
        }
    }

    /// Ringway as otherwise, with a session log.
    pub(super) fn logging(file: PathBuf) -> Self {
        Self {
            balancer: Balancer::Ringway,
            session_log: Some(file),
        }
    }

    /// Starts it on `core` and returns when a connection through it was echoed.
    pub(super) fn start(
        self,
        programs: &Path,
        directory: &Path,
        backends: &Backends,
        core: usize,
    ) -> Result<Running, String> {
        let balancer = self.balancer;
        if balancer == Balancer::Direct {
            return Ok(Running {
                balancer,
                services: backends.services,
                _scraper: None,
                child: None,
            });
        }
        let [http, echo, short, iperf, udp, tls, routed, plain] = free_addresses()?;
        let services = Services {
            http,
            echo,
            short,
            iperf,
            udp,
            tls,
            routed,
            plain,
        };
        let [admin] = free_addresses()?;
        let mut command = match balancer {
            Balancer::Ringway => ringway(
                programs,
                directory,
                admin,
                &services,
                backends,
                self.session_log.as_deref(),
            )?,
            Balancer::Haproxy => haproxy(directory, &services, backends)?,
            Balancer::Nginx => nginx(directory, &services, backends)?,
            Balancer::Sozu => sozu(directory, &services, &backends.services)?,
            _ => naive(programs, &services, &backends.services),
        };
        let variant = if self.session_log.is_some() { "-logging" } else { "" };
        let log = directory.join(format!("{}{variant}.log", balancer.option()));
        let mut child = Child::spawn(&mut command, core, log, false)?;
        wait_until_echoed(echo, &mut child).map_err(|e| format!("{}: {e}", balancer.title()))?;
        let scraper = (balancer == Balancer::Ringway)
            .then(|| Scraper::start(admin))
            .transpose()?;
        Ok(Running {
            balancer,
            services,
            _scraper: scraper,
            child: Some(child),
        })
    }
}

/// A balancer that serves. Ends when dropped.
pub(super) struct Running {
    pub(super) balancer: Balancer,
    pub(super) services: Services,
    /// Ended before what it looks at.
    _scraper: Option<Scraper>,
    /// `None` for the direct path.
    child: Option<Child>,
}

impl Running {
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    pub(super) fn last_words(&self) -> String {
        self.child.as_ref().map(Child::last_words).unwrap_or_default()
    }
}

fn ringway(
    programs: &Path,
    directory: &Path,
    admin: SocketAddr,
    services: &Services,
    backends: &Backends,
    session_log: Option<&Path>,
) -> Result<Command, String> {
    let mut text = format!("workers: 1\nadmin: {{ bind: {admin} }}\n");
    let mut name = "ringway.yaml";
    if let Some(file) = session_log {
        name = "ringway-logging.yaml";
        text += &format!("session_log: \"{}\"\n", file.display());
    }
    text += "listeners:\n";
    for (name, address) in services.named() {
        text += &format!("  {name}: {{ bind: {address}, protocol: tcp, pool: {name} }}\n");
    }
    text += &format!("  udp: {{ bind: {}, protocol: udp, pool: udp }}\n", services.udp);
    let routes: Vec<&str> = backends.named.iter().map(|it| it.name.as_str()).collect();
    text += &tls_listener("tls", services.tls, routes.iter().map(|name| (*name, *name)));
    text += &tls_listener(
        "routed",
        services.routed,
        routes.iter().take(1).map(|name| (*name, "long")),
    );
    text += &format!("  plain: {{ bind: {}, protocol: tcp, pool: long }}\n", services.plain);
    let targets = &backends.services;
    text += &format!("pools:\n  udp: {{ backends: [{}] }}\n", targets.udp);
    let named = backends.named.iter().map(|it| (it.name.as_str(), it.address));
    for (name, address) in targets
        .named()
        .into_iter()
        .chain([("long", targets.plain)])
        .chain(named)
    {
        // iperf3 takes a probe for a client, and serves one at a time: every probe asks the process with the other ports.
        let (port, interval) = (targets.echo.port(), scrape::INTERVAL.as_secs());
        text += &format!(
            "  {name}: {{ backends: [{address}], health_check: {{ protocol: tcp, port: {port}, interval: {interval}s }} }}\n"
        );
    }
    let file = write(directory, name, &text)?;
    let mut command = Command::new(programs.join("ringway"));
    command.args(["run", "--config"]).arg(file);
    Ok(command)
}

/// Names and the pools they lead to.
fn tls_listener<'a>(name: &str, address: SocketAddr, routes: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = format!("  {name}:\n    bind: {address}\n    protocol: tls\n    routes:\n");
    for (sni, pool) in routes {
        text += &format!("      - {{ sni: {sni}, pool: {pool} }}\n");
    }
    text + "    fallback: close\n"
}

/// The TLS listener waits for a hello as its manual shows it (`req.ssl_sni`, section 7.3.5 of its configuration manual).
fn haproxy(directory: &Path, services: &Services, backends: &Backends) -> Result<Command, String> {
    // Two descriptors per connection, and the pipes of splice.
    let connections_max = (host::descriptor_limit() - 200) / 3;
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {connections_max}\n  tune.bufsize 65536\n\
         defaults\n  mode tcp\n  option splice-auto\n  maxconn {connections_max}\n\
         \x20 timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
    );
    let targets = backends.services.named();
    for ((name, address), (_, target)) in services.named().into_iter().zip(targets) {
        text += &format!("listen {name}\n  bind {address}\n  server only {target}\n");
    }
    text += &format!(
        "frontend tls\n  bind {}\n  tcp-request inspect-delay 5s\n\
         \x20 tcp-request content accept if {{ req.ssl_hello_type 1 }}\n",
        services.tls
    );
    for named in &backends.named {
        text += &format!("  use_backend {0} if {{ req.ssl_sni -i {0} }}\n", named.name);
    }
    for named in &backends.named {
        text += &format!("backend {}\n  server only {}\n", named.name, named.address);
    }
    let file = write(directory, "haproxy.cfg", &text)?;
    // -db: in the foreground.
    let mut command = program("haproxy")?;
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}

/// Connections with a name that is not in the map are closed, as they are by the others.
fn nginx(directory: &Path, services: &Services, backends: &Backends) -> Result<Command, String> {
    let module = tools::nginx_stream_module().map(|file| format!("load_module {};\n", file.display()));
    let limit = host::descriptor_limit();
    let mut text = module.unwrap_or_default();
    text += &format!(
        "worker_processes 1;\ndaemon off;\npid {0}/nginx.pid;\nerror_log {0}/nginx-error.log;\n\
         worker_rlimit_nofile {limit};\nevents {{ worker_connections {limit}; }}\n\
         stream {{\n  proxy_buffer_size 64k;\n  proxy_connect_timeout 5s;\n  proxy_timeout 1h;\n",
        directory.display()
    );
    let targets = backends.services;
    for ((_, address), (_, target)) in services.named().into_iter().zip(targets.named()) {
        text += &format!("  server {{ listen {address} backlog=4096; proxy_pass {target}; }}\n");
    }
    text += &format!(
        "  server {{ listen {} udp; proxy_pass {}; }}\n",
        services.udp, targets.udp
    );
    let (mut map, mut upstreams) = (String::new(), String::new());
    for named in &backends.named {
        map += &format!(" {0} {0};", named.name);
        upstreams += &format!("  upstream {} {{ server {}; }}\n", named.name, named.address);
    }
    text += &format!(
        "  map $ssl_preread_server_name $pool {{{map} }}\n{upstreams}\
         \x20 server {{ listen {} backlog=4096; ssl_preread on; proxy_pass $pool; }}\n}}\n",
        services.tls
    );
    let file = write(directory, "nginx.conf", &text)?;
    let mut command = program("nginx")?;
    command
        .arg("-p")
        .arg(directory)
        .arg("-e")
        .arg(directory.join("nginx-error.log"))
        .arg("-c")
        .arg(file);
    Ok(command)
}

/// Its buffers are sized by what it takes for a datagram, 1,500 bytes by default.
fn sozu(directory: &Path, services: &Services, targets: &Services) -> Result<Command, String> {
    let mut text = format!(
        "command_socket = \"{0}/sozu.sock\"\npid_file_path = \"{0}/sozu.pid\"\nlog_level = \"error\"\n\
         log_target = \"stdout\"\nworker_count = 1\nworker_automatic_restart = false\nactivate_listeners = true\n\
         buffer_size = 65536\n",
        directory.display()
    );
    let pairs = services.named().into_iter().zip(targets.named());
    let pairs = pairs.map(|((name, address), (_, target))| ("tcp", name, address, target));
    let pairs: Vec<_> = pairs.chain([("udp", "udp", services.udp, targets.udp)]).collect();
    for (protocol, _, address, _) in &pairs {
        text += &format!("[[listeners]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\n");
    }
    for (_, name, address, target) in &pairs {
        // Its listener makes a cluster one of UDP.
        text += &format!(
            "[clusters.{name}]\nprotocol = \"tcp\"\nfrontends = [{{ address = \"{address}\" }}]\nbackends = [{{ \
             address = \"{target}\" }}]\n"
        );
    }
    let file = write(directory, "sozu.toml", &text)?;
    let mut command = program("sozu")?;
    command.args(["start", "--config"]).arg(file);
    Ok(command)
}

fn naive(programs: &Path, services: &Services, targets: &Services) -> Command {
    let mut command = Command::new(programs.join("naive-tokio-uring"));
    command.args(
        services
            .named()
            .into_iter()
            .zip(targets.named())
            .map(|((_, from), (_, to))| format!("{from}={to}")),
    );
    command
}

fn program(name: &str) -> Result<Command, String> {
    tools::find(name)
        .map(Command::new)
        .ok_or_else(|| format!("{name} is not installed"))
}

fn write(directory: &Path, name: &str, text: &str) -> Result<std::path::PathBuf, String> {
    let file = directory.join(name);
    std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    Ok(file)
}

/// Tries a whole round trip until it succeeds, the balancer ends, or patience does.
fn wait_until_echoed(address: SocketAddr, child: &mut Child) -> Result<(), String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        child.must_run()?;
        let error = match echo_once(address) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        if Instant::now() > deadline {
            let words = child.last_words();
            return Err(format!(
                "not ready after {} s: {error}; its log: {words}",
                PATIENCE.as_secs()
            ));
        }
        // Nothing tells when a foreign program listens; refused attempts are spaced out a little.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn echo_once(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(load::PROBE)?;
    let mut answer = [0; load::PROBE.len()];
    stream.read_exact(&mut answer)?;
    if answer == *load::PROBE {
        Ok(())
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

/// Addresses on 127.0.0.1 whose ports nobody uses. They lie outside the range of outgoing connections, so that none of
/// these takes one before the program that it is meant for, and no port is handed out twice.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const LOWEST: u16 = 10_000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing_from = range
        .split_whitespace()
        .next()
        .and_then(|low| low.parse().ok())
        .unwrap_or(32_768);
    // A range that leaves nothing below it is rare; then any port may do.
    let count = if outgoing_from > LOWEST + 1_000 {
        outgoing_from - LOWEST
    } else {
        u16::MAX - LOWEST
    };
    // Two runs at the same time start looking at different places.
    let start = (std::process::id() % u32::from(count)) as u16;
    let mut found = Vec::new();
    for _ in 0..count {
        let offset = NEXT.fetch_add(1, Relaxed);
        let port = LOWEST + ((u32::from(start) + u32::from(offset)) % u32::from(count)) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            found.push(address);
        }
        if let Ok(addresses) = <[SocketAddr; N]>::try_from(found.as_slice()) {
            return Ok(addresses);
        }
    }
    Err(format!(
        "no {N} free ports between {LOWEST} and {}",
        u32::from(LOWEST) + u32::from(count)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_listener_has_a_route_for_each_name() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let text = tls_listener("edge", address, [("a.example", "a"), ("b.example", "b")].into_iter());
        let expected = "  edge:
    bind: 127.0.0.1:443
    protocol: tls
    routes:
      - { sni: a.example, pool: a }
      - { sni: b.example, pool: b }
    fallback: close
";
        assert_eq!(text, expected);
    }

    #[test]
    fn free_addresses_are_different_and_usable() {
        let first: [SocketAddr; 4] = free_addresses().expect("four ports");
        let second: [SocketAddr; 4] = free_addresses().expect("four more");
        for address in first.iter().chain(&second) {
            TcpListener::bind(address).expect("nobody uses it");
        }
        assert!(first.iter().all(|address| !second.contains(address)));
    }
}
