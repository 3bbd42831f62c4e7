//! `ringway run --tcp BIND=BACKEND,BACKEND`: a configuration without a file, checked by the same rules.
//!
//! Every flag's text is a source of its own, so that problems point into what was typed.

use crate::Checked;
use crate::decode::{self, BALANCES};
use crate::diagnostic::Diagnostics;
use crate::problem::{Fault, Problems};
use crate::raw::{Admin, Backend, Backends, Config, Field, Listener, Pool};
use crate::source::{At, Origin, Sources, Span};
use crate::values::{address, name, word};
use ringway_core::model::{Address, Protocol};
use std::collections::HashSet;

/// What the command line says instead of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags<'a> {
    /// `--tcp`, once for each listener: `0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432`.
    pub tcp: &'a [String],
    /// `--balance`, for all pools: the words of the key `balance`.
    pub balance: Option<&'a str>,
    /// `--admin`: an address, or `off`.
    pub admin: Option<&'a str>,
    /// `--workers`: `auto`, or 1 to 1024.
    pub workers: Option<&'a str>,
}

/// The configuration that flags describe. A listener and its pool are called `tcp-PORT`, or `unix-1`, `unix-2`, ... for
/// UNIX sockets.
pub fn from_flags(flags: Flags<'_>) -> Result<Checked, Diagnostics> {
    let mut sources = Sources::new();
    let mut problems = Problems::default();
    let mut config = Config::default();
    let mut reader = Reader {
        sources: &mut sources,
        problems: &mut problems,
    };
    config.workers = reader.flag("--workers", flags.workers, decode::workers);
    let balance = reader.flag("--balance", flags.balance, |text| word::choose(text, &BALANCES, &[]));
    config.admin = reader.admin(flags.admin);
    let mut names = HashSet::new();
    for text in flags.tcp {
        let Some((mut listener, mut pool)) = reader.tcp(text, &mut names) else {
            config.partial = true;
            continue;
        };
        listener.pool.value = Some(pool.name.clone());
        pool.balance = Field {
            key: balance.key,
            value: balance.value.clone(),
        };
        config.listeners.entries.push(listener);
        config.pools.entries.push(pool);
    }
    if flags.tcp.is_empty() {
        let source = reader.sources.add("--tcp", "", Origin::Flag);
        let help = "write --tcp BIND=BACKEND,BACKEND, such as 0.0.0.0:5432=10.0.0.11:5432";
        problems.error(
            Span {
                source,
                start: 0,
                end: 0,
            },
            "there is nothing to listen on",
            help,
        );
        config.partial = true;
    }
    crate::conclude(config, &sources, problems)
}

struct Reader<'r, 'a> {
    sources: &'r mut Sources<'a>,
    problems: &'r mut Problems,
}

impl<'a> Reader<'_, 'a> {
    fn flag<T>(&mut self, name: &'a str, text: Option<&'a str>, parse: fn(&str) -> Result<T, Fault>) -> Field<T> {
        let Some(text) = text else { return Field::default() };
        let source = self.sources.add(name, text, Origin::Flag);
        let span = Span {
            source,
            start: 0,
            end: text.len(),
        };
        Field {
            key: Some(span),
            value: self.part(name, text, span, parse),
        }
    }

    /// One part of a flag's text. `span` is where it stands.
    fn part<T>(&mut self, what: &str, text: &str, span: Span, parse: fn(&str) -> Result<T, Fault>) -> Option<At<T>> {
        match parse(text) {
            Ok(value) => Some(At { value, span }),
            Err(fault) => {
                let place = match fault.part {
                    Some(part) => Span {
                        start: span.start + part.start,
                        end: span.start + part.end,
                        ..span
                    },
                    None => span,
                };
                self.problems
                    .error(place, format!("{what} {}", fault.message), fault.help);
                None
            }
        }
    }

    fn admin(&mut self, text: Option<&'a str>) -> Field<Admin> {
        if text == Some("off") {
            let span = Span {
                source: self.sources.add("--admin", "off", Origin::Flag),
                start: 0,
                end: 3,
            };
            return Field {
                key: Some(span),
                value: Some(At {
                    value: Admin::Off,
                    span,
                }),
            };
        }
        let bind = self.flag("--admin", text, address::parse_admin);
        let key = bind.key;
        Field {
            key,
            value: key.map(|span| At {
                value: Admin::On(bind),
                span,
            }),
        }
    }

    /// `BIND=BACKEND,BACKEND`. `None`: its shape is wrong, which was reported.
    fn tcp(&mut self, text: &'a str, names: &mut HashSet<String>) -> Option<(Listener, Pool)> {
        let source = self.sources.add("--tcp", text, Origin::Flag);
        let whole = Span {
            source,
            start: 0,
            end: text.len(),
        };
        let Some((left, right)) = text.split_once('=') else {
            let help = "write BIND=BACKEND,BACKEND, such as 0.0.0.0:5432=10.0.0.11:5432";
            self.problems.error(whole, "--tcp has no =", help);
            return None;
        };
        let left_span = Span {
            source,
            start: 0,
            end: left.len(),
        };
        let bind = self.part("bind", left, left_span, address::parse_bind);
        let name = At {
            value: unique_name(bind.as_ref().map(|at| &at.value), names),
            span: left_span,
        };
        let mut backends = Vec::new();
        let mut partial = false;
        let mut start = left.len() + 1;
        for item in right.split(',') {
            let span = Span {
                source,
                start,
                end: start + item.len(),
            };
            start += item.len() + 1;
            let target = self.part("backend", item, span, name::parse_target);
            partial |= target.is_none();
            backends.extend(target.map(|target| Backend::new(target, item.to_owned())));
        }
        let mut listener = Listener::new(name.clone());
        listener.bind = Field {
            key: Some(left_span),
            value: bind.map(|bind| At {
                value: vec![bind],
                span: left_span,
            }),
        };
        listener.protocol = Field {
            key: Some(whole),
            value: Some(At {
                value: Protocol::Tcp,
                span: whole,
            }),
        };
        listener.pool.key = Some(whole);
        let mut pool = Pool::new(name);
        // An empty list here means that every backend was reported, not that there is none.
        let value = (!backends.is_empty()).then_some(At {
            value: Backends {
                list: backends,
                partial,
            },
            span: whole,
        });
        pool.backends = Field {
            key: Some(whole),
            value,
        };
        Some((listener, pool))
    }
}

/// A name that tells the operator which flag it is, unique among the flags.
fn unique_name(bind: Option<&Address>, names: &mut HashSet<String>) -> String {
    let stem = match bind {
        Some(Address::Inet(address)) => format!("tcp-{}", address.port()),
        Some(Address::Unix(_)) => "unix".to_owned(),
        None => "tcp".to_owned(),
    };
    let numbered = (1_usize..).map(|number| match (number, bind) {
        (1, Some(Address::Inet(_))) => stem.clone(),
        (number, _) => format!("{stem}-{number}"),
    });
    let mut free = numbered.filter(|name| !names.contains(name));
    let name = free.next().unwrap_or(stem.clone());
    drop(free);
    names.insert(name.clone());
    name
}
