//! What keeps the answers of a backend from being delivered here, and the sentence about it.

use ringway_runtime::routes::{Fate, Packet, Rule, Transport};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The table that is suggested where none delivers yet.
const TABLE: u32 = 100;
/// `default`, `main` and `local` (ip-route(8)): whatever fails in them, nobody made them for this.
const OF_THE_SYSTEM: std::ops::RangeInclusive<u32> = 253..=255;
const MAIN: u32 = 254;

/// Answers that are asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub(super) transport: Transport,
    pub(super) backend: SocketAddr,
    /// To whom, as an example.
    pub(super) client: IpAddr,
    /// The backend is on this machine.
    pub(super) is_own: bool,
}

/// What there is to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// A rule that leads to this table, which delivers.
    Rule(u32),
    /// A route in this table, to which a rule leads.
    Route(u32),
    /// Both, for this table.
    Both(u32),
}

/// What is missing for a packet that has another fate than to be delivered; `None` if it is refused although a rule leads it
/// to a table that delivers. `tables`: those that deliver everything.
pub(super) fn missing(rules: &[Rule], tables: &[u32], packet: &Packet, interface: &str, fate: Fate) -> Option<Missing> {
    let applies = |rule: &Rule| !OF_THE_SYSTEM.contains(&rule.table) && rule.applies(packet, interface) == Some(true);
    let before_main: Vec<&Rule> = rules
        .iter()
        .take_while(|rule| rule.table != MAIN)
        .filter(|rule| applies(rule))
        .collect();
    let found_in = match fate {
        Fate::Elsewhere { table, .. } => Some(table),
        Fate::Refused(_) if before_main.iter().any(|rule| tables.contains(&rule.table)) => return None,
        Fate::Delivered | Fate::Refused(_) => None,
    };
    // A rule whose table had nothing for the packet is one that somebody made for this, and forgot the route. Not one for
    // everything: with the route in its table this machine would deliver to itself whatever it sends.
    let is_for_it =
        |rule: &&&Rule| rule.is_about_senders() && Some(rule.table) != found_in && !tables.contains(&rule.table);
    if let Some(rule) = before_main.iter().find(is_for_it) {
        return Some(Missing::Route(rule.table));
    }
    Some(match tables {
        [] => Missing::Both(TABLE),
        _ if tables.contains(&TABLE) => Missing::Rule(TABLE),
        [table, ..] => Missing::Rule(*table),
    })
}

/// Answers of a backend that are not delivered here. Displays as the rest of a sentence, with the lines to type.
#[derive(Debug)]
pub(super) struct Lack {
    pub(super) answers: Answers,
    /// Where they come in; `lo`: this machine sends them.
    pub(super) interface: String,
    /// `None`: nothing but their sender is in the way.
    pub(super) missing: Option<Missing>,
    /// The kernel takes their sender for forged, by a strict filter.
    pub(super) is_strict: bool,
}

impl Lack {
    /// Of a whole transport rather than of a port for UDP: pieces of a large datagram have no port.
    fn rule(&self, table: u32) -> String {
        let Answers { backend, transport, .. } = self.answers;
        let of = match transport {
            Transport::Tcp => format!("ipproto tcp sport {}", backend.port()),
            Transport::Udp => "ipproto udp".to_owned(),
        };
        let (ip, interface) = (self.ip(), &self.interface);
        format!(
            "{ip} rule add from {} {of} iif {interface} lookup {table}",
            backend.ip()
        )
    }

    fn route(&self, table: u32) -> String {
        let everything = if self.answers.backend.is_ipv6() {
            "::/0"
        } else {
            "0.0.0.0/0"
        };
        format!("{} route add local {everything} dev lo table {table}", self.ip())
    }

    const fn ip(&self) -> &'static str {
        if self.answers.backend.is_ipv6() { "ip -6" } else { "ip" }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.interface;
        let where_from = if self.answers.is_own {
            "which this machine sends itself".to_owned()
        } else {
            format!("which come in through {interface}")
        };
        write!(
            f,
            "its answers to clients (asked for {}), {where_from}, are not delivered here, so nothing can be connected: ",
            self.answers.client
        )?;
        if self.is_strict {
            write!(
                f,
                "the filter of reverse paths is strict there (net.ipv4.conf.{interface}.rp_filter is 1) and takes them for \
                 forged; type: sysctl -w net.ipv4.conf.{interface}.rp_filter=2; "
            )?;
        }
        match self.missing {
            None if self.is_strict => {}
            None => write!(
                f,
                "a rule leads them to a table that delivers, but the kernel refuses their sender on {interface} \
                 (net.ipv4.conf.{interface}.src_valid_mark must be 0, and there must be a route back to the backend there); "
            )?,
            Some(Missing::Rule(table)) => write!(
                f,
                "no rule leads them to table {table}, which delivers; type: {}; ",
                self.rule(table)
            )?,
            Some(Missing::Route(table)) => write!(
                f,
                "a rule leads them to table {table}, which has no route that delivers; type: {}; ",
                self.route(table)
            )?,
            Some(Missing::Both(table)) => write!(
                f,
                "no rule leads them to a table that delivers; type: {} && {}; ",
                self.rule(table),
                self.route(table)
            )?,
        }
        f.write_str(if self.answers.is_own {
            "see docs/how-to-transparent-source.md"
        } else {
            "and the backend must send its answers through this machine (a route to its clients)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lack(backend: &str, transport: Transport, missing: Missing) -> Lack {
        let backend: SocketAddr = backend.parse().expect("an address");
        let client = if backend.is_ipv6() { "2001:db8::1" } else { "192.0.2.1" };
        Lack {
            answers: Answers {
                transport,
                backend,
                client: client.parse().expect("an address"),
                is_own: backend.ip().is_loopback(),
            },
            interface: if backend.ip().is_loopback() { "lo" } else { "eth1" }.to_owned(),
            missing: Some(missing),
            is_strict: false,
        }
    }

    #[test]
    fn sentences_have_the_lines_to_type() {
        let both = lack("10.0.1.11:5432", Transport::Tcp, Missing::Both(100));
        assert_eq!(
            both.to_string(),
            "its answers to clients (asked for 192.0.2.1), which come in through eth1, are not delivered here, so nothing \
             can be connected: no rule leads them to a table that delivers; type: ip rule add from 10.0.1.11 ipproto tcp \
             sport 5432 iif eth1 lookup 100 && ip route add local 0.0.0.0/0 dev lo table 100; and the backend must send its \
             answers through this machine (a route to its clients)"
        );
        let rule = lack("[2001:db8:1::11]:53", Transport::Udp, Missing::Rule(7));
        let line = "no rule leads them to table 7, which delivers; type: ip -6 rule add from 2001:db8:1::11 ipproto udp iif \
                    eth1 lookup 7; and";
        assert!(rule.to_string().contains(line), "{rule}");
        let route = lack("127.0.0.1:80", Transport::Tcp, Missing::Route(100));
        assert!(
            route.to_string().ends_with(
                "which this machine sends itself, are not delivered here, so nothing can be connected: a rule leads them to \
                 table 100, which has no route that delivers; type: ip route add local 0.0.0.0/0 dev lo table 100; see \
                 docs/how-to-transparent-source.md"
            ),
            "{route}"
        );
        let strict = Lack {
            is_strict: true,
            ..both
        };
        let line = "type: sysctl -w net.ipv4.conf.eth1.rp_filter=2; no rule";
        assert!(strict.to_string().contains(line), "{strict}");
    }

    #[test]
    fn without_rules_a_table_that_delivers_is_used_again() {
        let packet = Packet {
            from: Some((Transport::Tcp, ([10, 0, 1, 11], 5432).into())),
            to: [192, 0, 2, 1].into(),
            comes_in: Some(2),
            mark: 0,
        };
        let missing = |tables: &[u32]| {
            let fate = Fate::Elsewhere {
                interface: 3,
                table: 254,
            };
            super::missing(&[], tables, &packet, "eth1", fate)
        };
        assert_eq!(missing(&[]), Some(Missing::Both(100)));
        assert_eq!(missing(&[7, 100]), Some(Missing::Rule(100)));
        assert_eq!(missing(&[7, 8]), Some(Missing::Rule(7)));
    }
}
