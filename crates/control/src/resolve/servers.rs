//! The DNS servers of one setting, and one question to them.
//!
//! Each server has a resolver of its own below, so that it is decided here what follows when one of them fails: the next
//! one is asked, as it is when one stays silent for a while; whoever answers first counts. Never caches: what an answer
//! is worth is told by its TTL, to `refresh`.

use super::lanes::Lanes;
use super::lookup::Answer;
use crate::model::Resolve;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, system_conf};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Silence of one server after which the next one is asked too.
const NEXT_SERVER_TIME: Duration = Duration::from_secs(1);
/// Upper bound of the library for one question; the deadline of a lookup comes sooner.
const LIBRARY_TIME: Duration = Duration::from_secs(6);
/// Questions on one TCP connection at once: more than the lanes let through.
const PIPELINE_MAX: usize = 512;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers of one setting.
pub(super) struct Servers {
    /// In the order in which they are asked.
    resolvers: Vec<(SocketAddr, TokioResolver)>,
    hosts: Hosts,
    /// Domains that a name is tried in, of resolv.conf.
    search: Vec<Name>,
    /// A name with fewer dots is tried in them before it is taken as it stands.
    ndots: usize,
    lanes: Lanes,
}

impl Servers {
    /// Reads the files of the system. The error is a sentence without its subject.
    pub(super) fn new(resolve: &Resolve) -> Result<Self, String> {
        if !resolve.servers.is_empty() {
            let options = ResolverOpts::default();
            return Self::build(&resolve.servers, (Vec::new(), options), system_hosts());
        }
        let text = match std::fs::read(RESOLV_CONF) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(format!(
                    "{RESOLV_CONF} cannot be read ({error}); make it readable, or name DNS servers in the pool's `resolve`"
                ));
            }
        };
        let (addresses, search, options) = parse_resolv_conf(text)?;
        Self::build(&addresses, (search, options), system_hosts())
    }

    /// From what the files said.
    pub(super) fn build(
        addresses: &[SocketAddr],
        (search, options): (Vec<Name>, ResolverOpts),
        hosts: Hosts,
    ) -> Result<Self, String> {
        let ndots = options.ndots;
        let mut resolvers = Vec::with_capacity(addresses.len());
        for address in addresses {
            let resolver = resolver(*address, options.clone())
                .map_err(|error| format!("the DNS server {address} cannot be used: {error}"))?;
            resolvers.push((*address, resolver));
        }
        Ok(Self {
            resolvers,
            hosts,
            search,
            ndots,
            lanes: Lanes::new(),
        })
    }

    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// What /etc/hosts says; it comes before DNS, and where it says something nobody else is asked.
    pub(super) fn hosts_file(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let addresses: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|lookup| {
                lookup
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// The full names that a name may mean, in the order in which they are tried (resolv.conf(5): search, ndots).
    pub(super) fn candidates(&self, host: &Name) -> Vec<Name> {
        let mut absolute = host.clone();
        absolute.set_fqdn(true);
        let searched = self
            .search
            .iter()
            .filter_map(|domain| host.clone().append_domain(domain).ok());
        if host.is_localhost() {
            vec![absolute]
        } else if usize::from(host.num_labels()) > self.ndots {
            std::iter::once(absolute).chain(searched).collect()
        } else {
            searched.chain([absolute]).collect()
        }
    }

    /// Asks one question; ends by the deadline.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType, deadline: Instant) -> Answer<Lookup> {
        // By server, so that the words do not depend on who failed first.
        let mut failures: Vec<Option<String>> = vec![None; self.resolvers.len()];
        let mut asked = JoinSet::new();
        let mut rest = self.resolvers.iter().enumerate();
        loop {
            if let Some((position, (_, resolver))) = rest.next() {
                let (resolver, name) = (resolver.clone(), name.clone());
                asked.spawn(async move { (position, resolver.lookup(name, kind).await) });
            } else if asked.is_empty() {
                break;
            }
            let patience = if rest.len() == 0 {
                LIBRARY_TIME
            } else {
                NEXT_SERVER_TIME
            };
            match timeout_at(deadline.min(Instant::now() + patience), asked.join_next()).await {
                Ok(Some(Ok((position, result)))) => match judge(result, kind) {
                    Answer::Failed(why) => failures[position] = Some(why),
                    answer => return answer,
                },
                // Only a panic inside the library ends so; that server counts as silent.
                Ok(_) => {}
                Err(_elapsed) if Instant::now() >= deadline => break,
                Err(_elapsed) => {}
            }
        }
        Answer::Failed(self.words(&failures))
    }

    fn words(&self, failures: &[Option<String>]) -> String {
        let words = self
            .resolvers
            .iter()
            .zip(failures)
            .map(|((address, _), failure)| match failure {
                Some(why) => format!("{address} {why}"),
                None => format!("{address} did not answer in time"),
            });
        words.collect::<Vec<_>>().join("; ")
    }
}

/// What the library's result means for the records that were asked for.
fn judge(result: Result<Lookup, NetError>, kind: RecordType) -> Answer<Lookup> {
    match result {
        Ok(lookup) => {
            // Aliases on the way count too: the answer holds only for as long as all of them do.
            let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
            let ttl = Duration::from_secs(u64::from(ttl));
            if lookup.answers().iter().any(|record| record.record_type() == kind) {
                Answer::Found(lookup, ttl)
            } else {
                Answer::Empty {
                    exists: true,
                    ttl: Some(ttl),
                }
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            // Neither an answer nor an authority for there being none: a server that does not resolve (RFC 2308, 2.2).
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                Answer::Failed("only refers to other servers; a resolving server is needed".to_owned())
            }
            code @ (ResponseCode::NoError | ResponseCode::NXDomain) => Answer::Empty {
                exists: code == ResponseCode::NoError,
                ttl: none.negative_ttl.map(|ttl| Duration::from_secs(u64::from(ttl))),
            },
            code => Answer::Failed(format!("answered \"{code}\"")),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Answer::Failed(format!("answered \"{code}\"")),
        Err(NetError::Timeout) => Answer::Failed("did not answer in time".to_owned()),
        Err(NetError::Io(error)) => Answer::Failed(format!("cannot be asked: {error}")),
        Err(error) => Answer::Failed(format!("gave no usable answer: {error}")),
    }
}

/// One server, over UDP and, for answers that do not fit, TCP.
fn resolver(address: SocketAddr, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    let server = NameServerConfig::new(address.ip(), true, connections);
    options.timeout = LIBRARY_TIME;
    // Lost datagrams are sent again within that time; what else fails is tried again by `refresh`.
    options.attempts = 0;
    options.max_active_requests = PIPELINE_MAX;
    // A cache would hide what the servers say now.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let config = ResolverConfig::from_name_servers(vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
}

/// Servers, search domains and options of resolv.conf(5). The error is a sentence without its subject.
fn parse_resolv_conf(mut text: Vec<u8>) -> Result<(Vec<SocketAddr>, Vec<Name>, ResolverOpts), String> {
    let names_a_server = text
        .split(|byte| *byte == b'\n')
        .any(|line| line.trim_ascii().starts_with(b"nameserver"));
    if !names_a_server {
        // As resolv.conf(5) has it: the server on the local machine.
        text.extend_from_slice(b"\nnameserver 127.0.0.1\n");
    }
    let (config, options) = system_conf::parse_resolv_conf(text).map_err(|error| {
        format!("{RESOLV_CONF} cannot be understood ({error}); correct it, or name DNS servers in the pool's `resolve`")
    })?;
    let mut addresses = Vec::new();
    for server in config.name_servers() {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        addresses.push(SocketAddr::new(server.ip, port));
    }
    let mut search = config.search().to_vec();
    if search.is_empty() {
        search.extend(config.domain().cloned());
    }
    Ok((addresses, search, options))
}

/// Without the file, or when it cannot be read, names simply are not in it.
fn system_hosts() -> Hosts {
    Hosts::from_system().unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, "/etc/hosts cannot be read; names are looked up in DNS only");
        }
        Hosts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(resolv_conf: &str, hosts_file: &str) -> Servers {
        let (addresses, search, options) = parse_resolv_conf(resolv_conf.into()).unwrap();
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(hosts_file.as_bytes()).unwrap();
        Servers::build(&addresses, (search, options), hosts).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::from_str_relaxed(text).unwrap()
    }

    fn candidates(resolv_conf: &str, host: &str) -> Vec<String> {
        let names = servers(resolv_conf, "").candidates(&name(host));
        names.iter().map(Name::to_string).collect()
    }

    #[test]
    fn names_are_tried_in_the_search_domains_as_resolv_conf_says() {
        let plain = "nameserver 192.0.2.1\nsearch a.test b.test\n";
        assert_eq!(candidates(plain, "db"), ["db.a.test.", "db.b.test.", "db."]);
        assert_eq!(candidates(plain, "db.x"), ["db.x.", "db.x.a.test.", "db.x.b.test."]);
        assert_eq!(candidates(plain, "localhost"), ["localhost."]);
        let cluster = "nameserver 192.0.2.1\nsearch ns.svc.test svc.test\noptions ndots:5\n";
        assert_eq!(
            candidates(cluster, "db.ns"),
            ["db.ns.ns.svc.test.", "db.ns.svc.test.", "db.ns."]
        );
        assert_eq!(candidates("nameserver 192.0.2.1\n", "db.x"), ["db.x."]);
    }

    #[test]
    fn servers_of_resolv_conf_are_asked_at_port_53_and_the_local_one_without_any() {
        let (addresses, _, _) = parse_resolv_conf(b"nameserver 192.0.2.1\nnameserver 2001:db8::1\n".to_vec()).unwrap();
        assert_eq!(
            addresses,
            ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]
        );
        let (addresses, _, _) = parse_resolv_conf(b"# nameserver 192.0.2.1\n".to_vec()).unwrap();
        assert_eq!(addresses, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn the_hosts_file_knows_names_whatever_their_case_and_only_those() {
        let servers = servers("", "10.0.0.7 DB.test db # comment\n2001:db8::7 db\n");
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            servers.hosts_file(&name("db")),
            Some(vec![address("10.0.0.7"), address("2001:db8::7")])
        );
        assert_eq!(servers.hosts_file(&name("db.test.")), Some(vec![address("10.0.0.7")]));
        assert_eq!(servers.hosts_file(&name("other")), None);
    }
}
