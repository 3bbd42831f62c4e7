//! The keys of the format, each declared once (in `table`): where it stands, what it takes, its default, what it means.
//!
//! `decode` accepts exactly these, suggestions come from these, and the reference in docs/configuration.md is rendered
//! from these. A test writes out every default found here and compares with a configuration that leaves them out.

mod elsewhere;
mod table;

use crate::suggest;
use elsewhere::{ANSWERS, ELSEWHERE, LATER};
use table::KEYS;

/// A map of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The file itself.
    Top,
    /// `admin`.
    Admin,
    /// `buffers`.
    Buffers,
    /// `session_log`.
    SessionLog,
    /// One of `listeners`.
    Listener,
    /// One of `routes` of a listener.
    Route,
    /// `proxy_protocol` of a listener.
    ProxyProtocol,
    /// `tcp_keepalive` of a listener or a pool.
    Keepalive,
    /// One of `pools`.
    Pool,
    /// `send_proxy` of a pool.
    SendProxy,
    /// `hash` of a pool.
    Hash,
    /// `queue` of a pool.
    Queue,
    /// `health_check` of a pool.
    HealthCheck,
    /// `tls` of a health check.
    ProbeTls,
    /// `passive` of a pool.
    Passive,
    /// `resolve` of a pool.
    Resolve,
    /// One of `backends`, when written as a map.
    Backend,
}

impl Place {
    /// In the order of the reference.
    pub(crate) const ALL: [Self; 17] = [
        Self::Top,
        Self::Admin,
        Self::Buffers,
        Self::SessionLog,
        Self::Listener,
        Self::Route,
        Self::ProxyProtocol,
        Self::Pool,
        Self::SendProxy,
        Self::Hash,
        Self::Queue,
        Self::HealthCheck,
        Self::ProbeTls,
        Self::Passive,
        Self::Resolve,
        Self::Backend,
        Self::Keepalive,
    ];

    /// How sentences call it.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Top => "the top level",
            Self::Admin => "`admin`",
            Self::Buffers => "`buffers`",
            Self::SessionLog => "`session_log`",
            Self::Listener => "a listener",
            Self::Route => "a route",
            Self::ProxyProtocol => "`proxy_protocol`",
            Self::SendProxy => "`send_proxy`",
            Self::Keepalive => "`tcp_keepalive`",
            Self::Pool => "a pool",
            Self::Hash => "`hash`",
            Self::Queue => "`queue`",
            Self::HealthCheck => "`health_check`",
            Self::ProbeTls => "`health_check.tls`",
            Self::Passive => "`passive`",
            Self::Resolve => "`resolve`",
            Self::Backend => "a backend",
        }
    }

    /// How sentences call one of its keys: with the map in front unless it has a line of its own.
    pub(crate) fn path(self, key: &str) -> String {
        match self {
            Self::Top | Self::Listener | Self::Route | Self::Pool | Self::Backend => key.to_owned(),
            inner => format!("{}.{key}", inner.words().trim_matches('`')),
        }
    }

    /// How the reference calls it.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Top => "Top level",
            Self::Admin => "`admin`",
            Self::Buffers => "`buffers`",
            Self::SessionLog => "`session_log`",
            Self::Listener => "A listener (`listeners.NAME`)",
            Self::Route => "A route (one of `routes` of a listener)",
            Self::ProxyProtocol => "`proxy_protocol` (of a listener)",
            Self::SendProxy => "`send_proxy` (of a pool)",
            Self::Keepalive => "`tcp_keepalive` (of a listener or a pool)",
            Self::Pool => "A pool (`pools.NAME`)",
            Self::Hash => "`hash` (of a pool)",
            Self::Queue => "`queue` (of a pool)",
            Self::HealthCheck => "`health_check` (of a pool)",
            Self::ProbeTls => "`tls` (of `health_check`)",
            Self::Passive => "`passive` (of a pool)",
            Self::Resolve => "`resolve` (of a pool)",
            Self::Backend => "A backend (one of `backends`)",
        }
    }
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Absent {
    /// It must be there.
    Required,
    /// As if this were written.
    Same(&'static str),
    /// Something that cannot be written as a value.
    Means(&'static str),
    /// A map whose keys have their own defaults.
    Inner,
}

/// A key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Where it stands.
    pub(crate) place: Place,
    /// As documented.
    pub(crate) name: &'static str,
    /// Also accepted.
    pub(crate) aliases: &'static [&'static str],
    /// What it takes, for the reference.
    pub(crate) takes: &'static str,
    /// When absent.
    pub(crate) absent: Absent,
    /// What it means, for the reference.
    pub(crate) meaning: &'static str,
}

/// For `<<`, which YAML 1.1 has and YAML 1.2 has not.
pub(crate) const MERGE_HELP: &str = "merge keys are not supported; give a whole value an anchor instead";

/// What a key's name turned out to be.
pub(crate) enum Found {
    /// A key of this place.
    Key(&'static Key),
    /// Not yet.
    Later,
    /// Nothing we know.
    Unknown {
        /// What would be right.
        help: String,
        /// The key that was probably meant.
        meant: Option<&'static str>,
    },
}

/// The keys of a place.
pub(crate) fn of(place: Place) -> impl Iterator<Item = &'static Key> + Clone {
    KEYS.iter().filter(move |key| key.place == place)
}

/// Finds a key by what was written.
pub(crate) fn find(place: Place, name: &str) -> Found {
    if let Some(key) = of(place).find(|key| key.name == name || key.aliases.contains(&name)) {
        return Found::Key(key);
    }
    if LATER.iter().any(|(at, names)| *at == place && names.contains(&name)) {
        return Found::Later;
    }
    let names = of(place).map(|key| key.name);
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(at, typed, _)| *at == place && *typed == name)
        .map(|(.., right)| *right);
    let answer = ANSWERS.iter().find(|(at, typed, _)| *at == place && *typed == name);
    if let Some((.., answer)) = answer {
        return Found::Unknown {
            help: (*answer).to_owned(),
            meant: None,
        };
    }
    let meant = elsewhere.or_else(|| suggest::nearest(name, names.clone()));
    let help = match meant {
        _ if name == "<<" => MERGE_HELP.to_owned(),
        Some(right) => format!("did you mean \"{right}\"?"),
        None => match other_place(place, name) {
            Some(other) => format!("it belongs in {}", other.words()),
            None => suggest::help(name, "keys", names),
        },
    };
    Found::Unknown { help, meant }
}

/// The one other place that has a key of this very name.
fn other_place(place: Place, name: &str) -> Option<Place> {
    let mut places = KEYS
        .iter()
        .filter(|key| key.place != place && key.name == name)
        .map(|key| key.place);
    places.next().filter(|_| places.next().is_none())
}

/// The reference of all keys as Markdown, one table for each map of the format.
pub fn reference() -> String {
    let mut text = String::new();
    for place in Place::ALL {
        text.push_str(&format!(
            "### {}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n",
            place.heading()
        ));
        for key in of(place) {
            let absent = match key.absent {
                Absent::Required => "required".to_owned(),
                Absent::Same(value) => format!("`{value}`"),
                Absent::Means(words) => words.to_owned(),
                Absent::Inner => "as below".to_owned(),
            };
            let aliases: String = key.aliases.iter().map(|alias| format!(" (or `{alias}`)")).collect();
            text.push_str(&format!(
                "| `{}`{aliases} | {} | {absent} | {} |\n",
                key.name, key.takes, key.meaning
            ));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
#[path = "keys_test.rs"]
mod tests;
