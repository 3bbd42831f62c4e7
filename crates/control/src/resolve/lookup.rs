//! One lookup of one name: which questions are asked, and what their answers mean together.
//!
//! The rule behind it: what could not be asked stays as it was known. Only an answer removes an address, for each family
//! of addresses and for each target of a service by itself. Waits nowhere else than for servers, until a deadline.

use super::servers::Servers;
use super::{ADDRESSES_MAX, Found};
use crate::model::Records;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// For one lookup in all.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// Of it, for what asks after the servers' deadline to be told of it.
const SLACK: Duration = Duration::from_millis(100);
/// Of it, what the targets of a service have at least.
const TARGETS_TIME: Duration = Duration::from_secs(2);
/// Once one family of addresses is known, the other one has this long. Below what makes a lookup slow: names of zones
/// that never answer for AAAA are not to be taken for names behind a dead server.
const OTHER_FAMILY_TIME: Duration = Duration::from_millis(400);
const _: () = assert!(OTHER_FAMILY_TIME.as_millis() < super::lanes::QUICK_TIME.as_millis());
/// Targets of one service that are looked up: more than what is taken of their addresses, so that `refresh` notices that
/// there are too many.
const TARGETS_MAX: usize = 256;
const _: () = assert!(TARGETS_MAX > ADDRESSES_MAX);
/// Targets of one service that are looked up at once.
const TARGETS_AT_ONCE: usize = 4;
/// Aliases that are followed from a service's name.
const ALIASES_MAX: usize = 8;
/// Highest weight of a backend.
const WEIGHT_MAX: u32 = 1000;
const FAMILIES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// What became of a question.
pub(super) enum Answer<T> {
    /// And how long it holds.
    Found(T, Duration),
    /// The servers say that there is nothing.
    Empty {
        /// Whether the name exists, for other records.
        exists: bool,
        /// How long that holds; `None`: nothing was said.
        ttl: Option<Duration>,
    },
    /// They did not say; words about who and why.
    Failed(String),
}

/// What servers said last, by full name and family.
#[derive(Default)]
pub(super) struct Known(HashMap<(Name, RecordType), Vec<IpAddr>>);

impl Known {
    fn of(&self, name: &Name, family: RecordType) -> Option<&Vec<IpAddr>> {
        self.0.get(&(name.clone(), family))
    }

    fn keep(&mut self, name: &Name, family: RecordType, addresses: Vec<IpAddr>) {
        self.0.insert((name.clone(), family), addresses);
    }
}

/// Looks a name up; ends within [`LOOKUP_TIME`]. `known` is what earlier lookups of this name learnt.
pub(super) async fn look_up(
    servers: &Arc<Servers>,
    host: &Name,
    records: Records,
    known: &mut Known,
) -> Answer<Vec<Found>> {
    if let (Records::Addresses(port), Some(addresses)) = (records, servers.hosts_file(host)) {
        return Answer::Found(with_port(&addresses, port), Duration::MAX);
    }
    let mut round = Round {
        servers,
        deadline: Instant::now() + LOOKUP_TIME - SLACK * 2,
        known,
        used: Known::default(),
    };
    let mut answer = Answer::Empty {
        exists: false,
        ttl: None,
    };
    for name in servers.candidates(host) {
        answer = match records {
            Records::Addresses(port) => match round.addresses(&name).await {
                Answer::Found(addresses, ttl) => Answer::Found(with_port(&addresses, port), ttl),
                Answer::Empty { exists, ttl } => Answer::Empty { exists, ttl },
                Answer::Failed(why) => Answer::Failed(why),
            },
            Records::Services => round.services(name).await,
        };
        // Also after a failure: the same name in the next search domain may be somebody else's.
        if !matches!(answer, Answer::Empty { .. }) {
            break;
        }
    }
    let used = round.used;
    if !matches!(answer, Answer::Failed(_)) {
        *known = used;
    }
    answer
}

fn with_port(addresses: &[IpAddr], port: u16) -> Vec<Found> {
    let mut found: Vec<Found> = addresses
        .iter()
        .map(|address| Found {
            address: SocketAddr::new(*address, port),
            weight: None,
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// One lookup under way.
struct Round<'a> {
    servers: &'a Arc<Servers>,
    /// Of every question.
    deadline: Instant,
    known: &'a Known,
    /// What of it counted this time, with what is new: the next round's `known`.
    used: Known,
}

impl Round<'_> {
    async fn addresses(&mut self, name: &Name) -> Answer<Vec<IpAddr>> {
        let answers = families(self.servers, name, self.deadline).await;
        self.together(name, answers)
    }

    /// Joins what was said about the two families; a family that could not be asked is as it was known, if the other one
    /// was found.
    fn together(&mut self, name: &Name, answers: [Answer<Vec<IpAddr>>; 2]) -> Answer<Vec<IpAddr>> {
        let any_found = answers.iter().any(|answer| matches!(answer, Answer::Found(..)));
        let mut all = Vec::new();
        let mut ttl_min: Option<Duration> = None;
        let mut name_exists = false;
        let mut failure = None;
        for (family, answer) in FAMILIES.into_iter().zip(answers) {
            match answer {
                Answer::Found(addresses, ttl) => {
                    ttl_min = Some(ttl_min.map_or(ttl, |min| min.min(ttl)));
                    all.extend_from_slice(&addresses);
                    self.used.keep(name, family, addresses);
                }
                Answer::Empty { exists, ttl } => {
                    name_exists |= exists;
                    // How long one family is absent does not shorten how long the other one holds.
                    if let (false, Some(ttl)) = (any_found, ttl) {
                        ttl_min = Some(ttl_min.map_or(ttl, |min| min.min(ttl)));
                    }
                }
                Answer::Failed(why) => {
                    if let (true, Some(addresses)) = (any_found, self.known.of(name, family)) {
                        all.extend_from_slice(addresses);
                        self.used.keep(name, family, addresses.clone());
                    }
                    failure.get_or_insert(why);
                }
            }
        }
        match failure {
            Some(why) if !any_found => Answer::Failed(why),
            _ if any_found => Answer::Found(all, ttl_min.unwrap_or_default()),
            _ => Answer::Empty {
                exists: name_exists,
                ttl: ttl_min,
            },
        }
    }

    async fn services(&mut self, name: Name) -> Answer<Vec<Found>> {
        let (lookup, ttl) = match self.service_records(name).await {
            Answer::Found(lookup, ttl) => (lookup, ttl),
            Answer::Empty { exists, ttl } => return Answer::Empty { exists, ttl },
            Answer::Failed(why) => return Answer::Failed(why),
        };
        let services = usable_services(&lookup);
        let mut targets: Vec<Name> = services.iter().map(|service| service.target.clone()).collect();
        targets.sort_unstable();
        targets.dedup();
        targets.truncate(TARGETS_MAX);
        let mut ttl_min = ttl;
        let mut failure = None;
        let mut by_target = BTreeMap::new();
        for (target, answer) in self.targets(&lookup, targets).await {
            match answer {
                Answer::Found(addresses, ttl) => {
                    ttl_min = ttl_min.min(ttl);
                    by_target.insert(target, addresses);
                }
                Answer::Empty { .. } => {}
                Answer::Failed(why) => {
                    // Asked for again soon, and meanwhile as it was known.
                    ttl_min = Duration::ZERO;
                    let addresses = self.as_known(&target);
                    by_target.insert(target, addresses);
                    failure.get_or_insert(why);
                }
            }
        }
        let found = weighed(&services, &by_target);
        match failure {
            _ if !found.is_empty() => Answer::Found(found, ttl_min),
            Some(why) => Answer::Failed(why),
            None => Answer::Empty {
                exists: true,
                ttl: Some(ttl),
            },
        }
    }

    fn as_known(&mut self, target: &Name) -> Vec<IpAddr> {
        let mut all = Vec::new();
        for family in FAMILIES {
            if let Some(addresses) = self.known.of(target, family) {
                all.extend_from_slice(addresses);
                self.used.keep(target, family, addresses.clone());
            }
        }
        all
    }

    /// The library follows aliases of hosts; for services it takes the target for the alias, so that is done here.
    async fn service_records(&self, mut name: Name) -> Answer<Lookup> {
        let deadline = self.deadline - TARGETS_TIME;
        let mut alias_ttl = Duration::MAX;
        for _ in 0..ALIASES_MAX {
            let nothing = match self.servers.ask(&name, RecordType::SRV, deadline).await {
                Answer::Found(lookup, ttl) => return Answer::Found(lookup, ttl.min(alias_ttl)),
                nothing @ Answer::Empty { exists: true, .. } => nothing,
                answer => return answer,
            };
            let (lookup, ttl) = match self.servers.ask(&name, RecordType::CNAME, deadline).await {
                Answer::Found(lookup, ttl) => (lookup, ttl),
                Answer::Empty { .. } => return nothing,
                failed @ Answer::Failed(_) => return failed,
            };
            alias_ttl = alias_ttl.min(ttl);
            let alias = lookup.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(alias) => Some(alias.0.clone()),
                _ => None,
            });
            match alias {
                Some(alias) => name = alias,
                None => return nothing,
            }
        }
        Answer::Failed(format!("its aliases do not end within {ALIASES_MAX} names"))
    }

    /// What is known of each target: from /etc/hosts, from what the server added to its answer, or by asking.
    async fn targets(&mut self, lookup: &Lookup, targets: Vec<Name>) -> Vec<(Name, Answer<Vec<IpAddr>>)> {
        let mut all = Vec::new();
        let mut to_ask = Vec::new();
        for target in targets {
            let told = match self.servers.hosts_file(&target) {
                Some(addresses) => Some((addresses, Duration::MAX)),
                None => added(lookup, &target),
            };
            match told {
                Some((addresses, ttl)) => {
                    for (family, is_v4) in FAMILIES.into_iter().zip([true, false]) {
                        let of_family = addresses.iter().filter(|address| address.is_ipv4() == is_v4);
                        self.used.keep(&target, family, of_family.copied().collect());
                    }
                    all.push((target, Answer::Found(addresses, ttl)));
                }
                None => to_ask.push(target),
            }
        }
        let mut asked = JoinSet::new();
        let mut answered = HashMap::new();
        let mut waiting = to_ask.iter();
        let until = self.deadline + SLACK * 2;
        loop {
            while asked.len() < TARGETS_AT_ONCE
                && let Some(target) = waiting.next()
            {
                let (servers, target, deadline) = (Arc::clone(self.servers), target.clone(), self.deadline);
                asked.spawn(async move {
                    let answers = families(&servers, &target, deadline).await;
                    (target, answers)
                });
            }
            match timeout_at(until, asked.join_next()).await {
                Ok(Some(Ok((target, answers)))) => drop(answered.insert(target, answers)),
                // Only a panic inside the library ends so; that target counts as not answered.
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        for target in to_ask {
            let answer = match answered.remove(&target) {
                Some(answers) => self.together(&target, answers),
                None => Answer::Failed(format!("there was no time left for its target {target}")),
            };
            all.push((target, answer));
        }
        all
    }
}

/// Asks for both families at once.
async fn families(servers: &Arc<Servers>, name: &Name, deadline: Instant) -> [Answer<Vec<IpAddr>>; 2] {
    let mut asked = JoinSet::new();
    for (position, kind) in FAMILIES.into_iter().enumerate() {
        let (servers, name) = (Arc::clone(servers), name.clone());
        asked.spawn(async move { (position, servers.ask(&name, kind, deadline).await) });
    }
    let mut answers = FAMILIES.map(|kind| Answer::Failed(format!("{kind} records did not come in time")));
    let mut until = deadline + SLACK;
    while let Ok(Some(ended)) = timeout_at(until, asked.join_next()).await {
        // Only a panic inside the library ends with an error; that family counts as not answered.
        let Ok((position, answer)) = ended else { continue };
        answers[position] = match answer {
            Answer::Found(lookup, ttl) => {
                until = until.min(Instant::now() + OTHER_FAMILY_TIME);
                let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                Answer::Found(addresses.collect(), ttl)
            }
            Answer::Empty { exists, ttl } => Answer::Empty { exists, ttl },
            Answer::Failed(why) => Answer::Failed(why),
        };
    }
    answers
}

/// One SRV record.
struct Service {
    target: Name,
    port: u16,
    weight: u16,
}

/// Those of the lowest priority number; the target "." says that there is none (RFC 2782).
fn usable_services(lookup: &Lookup) -> Vec<Service> {
    let records = || {
        lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(service) if !service.target.is_root() => Some(service),
            _ => None,
        })
    };
    let Some(lowest) = records().map(|service| service.priority).min() else {
        return Vec::new();
    };
    records()
        .filter(|service| service.priority == lowest)
        .map(|service| Service {
            target: service.target.clone(),
            port: service.port,
            weight: service.weight,
        })
        .collect()
}

/// The addresses that a server added to its answer for this target, and how long they hold.
fn added(lookup: &Lookup, target: &Name) -> Option<(Vec<IpAddr>, Duration)> {
    let of_target = || lookup.additionals().iter().filter(|record| record.name == *target);
    let addresses: Vec<IpAddr> = of_target().filter_map(|record| record.data.ip_addr()).collect();
    let ttl = of_target().map(|record| record.ttl).min()?;
    (!addresses.is_empty()).then_some((addresses, Duration::from_secs(u64::from(ttl))))
}

/// Every address of every target with its port and weight; weights of the same address add up.
fn weighed(services: &[Service], by_target: &BTreeMap<Name, Vec<IpAddr>>) -> Vec<Found> {
    let mut weights: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for service in services {
        let mut addresses = by_target.get(&service.target).cloned().unwrap_or_default();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            let weight = weights.entry(SocketAddr::new(address, service.port)).or_default();
            *weight = weight.saturating_add(u32::from(service.weight));
        }
    }
    let highest = weights.values().copied().max().unwrap_or(0).max(WEIGHT_MAX);
    weights
        .into_iter()
        .map(|(address, weight)| Found {
            address,
            weight: Some(scaled(weight, highest)),
        })
        .collect()
}

/// Rounded, and at least 1: who is listed gets something.
fn scaled(weight: u32, highest: u32) -> u16 {
    let scaled = (u64::from(weight) * u64::from(WEIGHT_MAX) + u64::from(highest) / 2) / u64::from(highest);
    u16::try_from(scaled).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fit_into_1_to_1000_and_keep_their_proportions() {
        assert_eq!([0, 1, 500, 1000].map(|weight| scaled(weight, 1000)), [1, 1, 500, 1000]);
        assert_eq!(
            [0, 10, 32_768, 65_535].map(|weight| scaled(weight, 65_535)),
            [1, 1, 500, 1000]
        );
    }

    #[test]
    fn the_same_address_twice_has_the_sum_of_its_weights() {
        let name = |text: &str| Name::from_str_relaxed(text).unwrap();
        let service = |target: &str, port, weight| Service {
            target: name(target),
            port,
            weight,
        };
        let by_target = BTreeMap::from([
            (name("a.test."), vec!["10.0.0.1".parse().unwrap()]),
            (
                name("b.test."),
                vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ),
        ]);
        let services = [
            service("a.test.", 80, 10),
            service("b.test.", 80, 5),
            service("b.test.", 81, 0),
            service("gone.test.", 80, 7),
        ];
        let found: Vec<(String, Option<u16>)> = weighed(&services, &by_target)
            .iter()
            .map(|found| (found.address.to_string(), found.weight))
            .collect();
        let expected = [
            ("10.0.0.1:80", 15),
            ("10.0.0.1:81", 1),
            ("10.0.0.2:80", 5),
            ("10.0.0.2:81", 1),
        ];
        assert_eq!(
            found,
            expected.map(|(address, weight)| (address.to_owned(), Some(weight)))
        );
    }
}
