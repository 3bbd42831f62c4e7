//! Which pool a connection goes to by what its client says first: the name and the protocols of a TLS hello.
//!
//! The most specific route that matches wins: a whole name before a wildcard, a longer wildcard before a shorter one, any
//! name before none; of routes for the same names, one for a protocol that the client offers before one for all of them,
//! and of several offered the one that the client names first. A route whose names match and whose protocols do not is no
//! match: the next one is looked at. Knows nothing of bytes; names come in their normal form (lower case, no dot at the
//! end).

use crate::model::PoolIndex;
use std::collections::BTreeMap;

/// Which names a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Names {
    /// Exactly this one.
    Exact(Box<str>),
    /// Every name that ends with a dot and this: any number of labels in front.
    Below(Box<str>),
    /// Any name.
    Any,
    /// Any name, or none.
    All,
}

/// The routes of a listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    exact: BTreeMap<Box<str>, Targets>,
    below: BTreeMap<Box<str>, Targets>,
    any: Targets,
    all: Targets,
}

/// Routes for the same names.
#[derive(Clone, Debug, Default, PartialEq)]
struct Targets {
    by_protocol: BTreeMap<Box<[u8]>, PoolIndex>,
    others: Option<PoolIndex>,
}

impl Routes {
    /// Adds a route for these names: for clients that offer this protocol (RFC 7301), or for all (`None`). Returns the
    /// pool of a route for the very same that is there already; that one stays.
    pub fn add(&mut self, names: &Names, protocol: Option<&[u8]>, pool: PoolIndex) -> Option<PoolIndex> {
        let targets = match names {
            Names::Exact(name) => self.exact.entry(name.clone()).or_default(),
            Names::Below(suffix) => self.below.entry(suffix.clone()).or_default(),
            Names::Any => &mut self.any,
            Names::All => &mut self.all,
        };
        let before = match protocol {
            Some(protocol) => targets.by_protocol.get(protocol).copied(),
            None => targets.others,
        };
        if before.is_none() {
            match protocol {
                Some(protocol) => {
                    targets.by_protocol.insert(protocol.into(), pool);
                }
                None => targets.others = Some(pool),
            }
        }
        before
    }

    /// Where a client goes that asks for this name, if any, and offers these protocols in the order of its preference.
    /// `None`: no route matches.
    pub fn find<'a>(&self, name: Option<&str>, protocols: impl Iterator<Item = &'a [u8]> + Clone) -> Option<PoolIndex> {
        let pick = |targets: &Targets| targets.pick(protocols.clone());
        if let Some(name) = name {
            if let Some(pool) = self.exact.get(name).and_then(pick) {
                return Some(pool);
            }
            if !self.below.is_empty() {
                let mut rest = name;
                while let Some((_, suffix)) = rest.split_once('.') {
                    if let Some(pool) = self.below.get(suffix).and_then(pick) {
                        return Some(pool);
                    }
                    rest = suffix;
                }
            }
            if let Some(pool) = pick(&self.any) {
                return Some(pool);
            }
        }
        pick(&self.all)
    }

    /// Every pool that a route leads to; some of them more than once.
    pub fn pools(&self) -> impl Iterator<Item = PoolIndex> + '_ {
        let named = self.exact.values().chain(self.below.values());
        named.chain([&self.any, &self.all]).flat_map(Targets::pools)
    }
}

impl Targets {
    fn pick<'a>(&self, mut protocols: impl Iterator<Item = &'a [u8]>) -> Option<PoolIndex> {
        if self.by_protocol.is_empty() {
            return self.others;
        }
        let offered = protocols.find_map(|protocol| self.by_protocol.get(protocol).copied());
        offered.or(self.others)
    }

    fn pools(&self) -> impl Iterator<Item = PoolIndex> + '_ {
        self.by_protocol.values().copied().chain(self.others)
    }
}
