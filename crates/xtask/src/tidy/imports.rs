//! What a floor never contains: paths, crates and words, declared once per package. Tests are free.

use super::source::{PathAt, Token, paths};
use super::{Kind, Package, Violation, Workspace};

enum Banned {
    /// These parts next to each other, anywhere in a path: `net::TcpStream`.
    Path(&'static [&'static str]),
    /// A crate: as the first part of a path and as a dependency.
    Crate(&'static str),
    /// A word inside an identifier, in whatever case, also in the plural.
    Word(&'static str),
}

use Banned::{Crate, Path, Word};

struct Rule {
    package: &'static str,
    /// Completes the sentence "... in NAME, which knows no ...".
    knows_no: &'static str,
    banned: &'static [&'static [Banned]],
}

const STD_SOCKETS: &[Banned] = &[
    Path(&["net", "TcpStream"]),
    Path(&["net", "TcpListener"]),
    Path(&["net", "UdpSocket"]),
    Path(&["net", "UnixStream"]),
    Path(&["net", "UnixListener"]),
    Path(&["net", "UnixDatagram"]),
    Path(&["net", "ToSocketAddrs"]),
    Path(&["net", "*"]),
];
const SOCKET_CRATES: &[Banned] = &[
    Crate("libc"),
    Crate("nix"),
    Crate("rustix"),
    Crate("socket2"),
    Crate("io_uring"),
    Crate("mio"),
];
const CLOCKS: &[Banned] = &[Path(&["Instant", "now"]), Path(&["SystemTime", "now"])];
const CHANCE: &[Banned] = &[
    Path(&["hash", "RandomState"]),
    Path(&["hash_map", "RandomState"]),
    Crate("rand"),
    Crate("getrandom"),
    Crate("fastrand"),
];
const TEXT_FORMATS: &[Banned] = &[
    Crate("serde"),
    Crate("serde_json"),
    Crate("serde_saphyr"),
    Crate("serde_yaml"),
    Crate("toml"),
];
const LOGGING: &[Banned] = &[Crate("tracing"), Crate("log")];
const FILES: &[Banned] = &[Path(&["std", "fs"]), Path(&["fs", "File"])];
const THREADS: &[Banned] = &[Path(&["std", "thread"]), Path(&["thread", "spawn"]), Crate("tokio")];
const HTTP: &[Banned] = &[Crate("hyper"), Crate("axum"), Crate("http"), Crate("reqwest")];
const PRODUCT_WORDS: &[Banned] = &[Word("pool"), Word("backend"), Word("session"), Word("health")];

const RULES: &[Rule] = &[
    Rule {
        package: "ringway-wire",
        knows_no: "sockets, clocks, files or configuration",
        banned: &[
            STD_SOCKETS,
            SOCKET_CRATES,
            CLOCKS,
            CHANCE,
            TEXT_FORMATS,
            LOGGING,
            FILES,
            THREADS,
        ],
    },
    Rule {
        package: "ringway-core",
        knows_no: "sockets, clocks, chance, serialisation or logs",
        banned: &[
            STD_SOCKETS,
            SOCKET_CRATES,
            CLOCKS,
            CHANCE,
            TEXT_FORMATS,
            LOGGING,
            FILES,
            THREADS,
        ],
    },
    Rule {
        package: "ringway-runtime",
        knows_no: "words of the product",
        banned: &[PRODUCT_WORDS],
    },
    Rule {
        package: "ringway-config",
        knows_no: "sockets or threads",
        banned: &[STD_SOCKETS, SOCKET_CRATES, THREADS],
    },
    Rule {
        package: "ringway-proxy",
        knows_no: "sockets of its own, files, text formats or HTTP",
        banned: &[STD_SOCKETS, SOCKET_CRATES, FILES, TEXT_FORMATS, HTTP],
    },
];

/// The only package that may say `unsafe`.
const UNSAFE_FOLDER: &str = "crates/runtime/";

pub(super) fn check(workspace: &Workspace) -> Vec<Violation> {
    let mut violations = Vec::new();
    for rule in RULES {
        let Some(package) = workspace.packages.iter().find(|package| package.name == rule.package) else {
            continue;
        };
        violations.extend(rule.check_dependencies(package));
        for source in workspace.product_sources(package) {
            let mut places: Vec<(usize, String)> = Vec::new();
            let paths = paths(&source.product_tokens);
            for banned in rule.banned.iter().copied().flatten() {
                places.extend(paths.iter().filter_map(|path| banned.find_in_path(path)));
                places.extend(
                    source
                        .product_tokens
                        .iter()
                        .filter_map(|token| banned.find_in_word(token)),
                );
            }
            // Once per file is enough to find the others.
            places.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
            places.dedup_by(|later, first| later.1 == first.1);
            violations.extend(places.into_iter().map(|(line, what)| {
                format!(
                    "{}:{line}: `{what}` in {}, which knows no {}",
                    source.path, rule.package, rule.knows_no
                )
            }));
        }
    }
    violations
}

/// `unsafe` and lint exceptions for it, tests included.
pub(super) fn check_unsafe(workspace: &Workspace) -> Vec<Violation> {
    let outside = workspace
        .sources
        .iter()
        .filter(|source| !source.path.starts_with(UNSAFE_FOLDER));
    outside
        .flat_map(|source| {
            let found = source
                .tokens
                .iter()
                .filter(|t| t.is_word("unsafe") || t.is_word("unsafe_code"));
            found.map(|t| format!("{}:{}: `unsafe` belongs into {UNSAFE_FOLDER} only", source.path, t.line))
        })
        .collect()
}

impl Rule {
    fn check_dependencies(&self, package: &Package) -> Vec<Violation> {
        let is_banned = |name: &str| {
            let name = name.replace('-', "_");
            self.banned
                .iter()
                .copied()
                .flatten()
                .any(|b| matches!(b, Crate(banned) if *banned == name))
        };
        let shipped = package
            .dependencies
            .iter()
            .filter(|d| d.kind != Kind::Dev && is_banned(&d.name));
        shipped
            .map(|d| {
                format!(
                    "{}/Cargo.toml: {} in {}, which knows no {}",
                    package.folder, d.name, self.package, self.knows_no
                )
            })
            .collect()
    }
}

impl Banned {
    fn find_in_path(&self, path: &PathAt) -> Option<(usize, String)> {
        let parts: Vec<&str> = path.parts.iter().map(String::as_str).collect();
        let found = match self {
            Path(banned) => parts.windows(banned.len()).any(|window| window == *banned),
            Crate(banned) => (path.in_use || parts.len() > 1) && parts.first() == Some(banned),
            Word(_) => false,
        };
        found.then(|| (path.line, parts.join("::")))
    }

    fn find_in_word(&self, token: &Token) -> Option<(usize, String)> {
        let (Word(banned), Some(word)) = (self, token.word()) else {
            return None;
        };
        let found = parts_of(word).any(|part| part == *banned || part.strip_suffix('s') == Some(banned));
        found.then(|| (token.line, word.to_owned()))
    }
}

/// `BufferPool` and `buffer_pool` and `BUFFER_POOL`: `buffer`, `pool`.
fn parts_of(identifier: &str) -> impl Iterator<Item = String> {
    let mut parts = vec![String::new()];
    let mut previous_is_lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && previous_is_lower) {
            parts.push(String::new());
        }
        previous_is_lower = c.is_lowercase() || c.is_ascii_digit();
        if c != '_'
            && let Some(part) = parts.last_mut()
        {
            part.extend(c.to_lowercase());
        }
    }
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(package: &str, text: &str) -> Vec<Violation> {
        let workspace = Workspace::default().with_package(package, &[]);
        let path = format!("{}/src/file.rs", workspace.packages[0].folder);
        check(&workspace.with_source(&path, text))
    }

    #[test]
    fn core_has_no_clock_and_no_socket() {
        let clean = "use std::net::{IpAddr, SocketAddr}; fn f(now: Instant) { now + MS; } // Instant::now()";
        assert_eq!(violations("ringway-core", clean), Vec::<String>::new());
        let clock = violations("ringway-core", "fn f() {\n let t = std::time::Instant::now();\n}");
        assert_eq!(
            clock,
            [
                "crates/core/src/file.rs:2: `std::time::Instant::now` in ringway-core, which knows no sockets, clocks, chance, serialisation or logs"
            ]
        );
        for text in [
            "use std::net::{IpAddr, TcpStream};",
            "use std::net::*;",
            "fn f() { net::UdpSocket::bind(a); }",
            "use tracing::info;",
            "use serde::{Serialize};",
            "fn f() { rand::rng(); }",
            "fn f() { SystemTime::now(); }",
        ] {
            assert_eq!(violations("ringway-core", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn tests_of_core_may_do_what_core_may_not() {
        let text = "#[cfg(test)] mod tests { fn f() { Instant::now(); } } #[cfg(test)] mod other;";
        assert_eq!(violations("ringway-core", text), Vec::<String>::new());
        let workspace = Workspace::default()
            .with_package("ringway-core", &[])
            .with_source("crates/core/src/lib.rs", "#[cfg(test)] mod other;")
            .with_source("crates/core/src/other.rs", "mod more; fn f() { Instant::now(); }")
            .with_source("crates/core/src/other/more.rs", "fn f() { Instant::now(); }")
            .with_source("crates/core/tests/more.rs", "fn f() { Instant::now(); }");
        assert_eq!(check(&workspace), Vec::<String>::new());
    }

    #[test]
    fn proxy_takes_its_sockets_from_runtime() {
        assert_eq!(
            violations("ringway-proxy", "use ringway_runtime::net::Stream;"),
            Vec::<String>::new()
        );
        assert_eq!(
            violations("ringway-proxy", "use ringway_runtime::TcpStream;"),
            Vec::<String>::new()
        );
        for text in [
            "use std::net::TcpStream;",
            "use libc::c_int;",
            "fn f() { std::fs::read(p); }",
            "use nix;",
        ] {
            assert_eq!(violations("ringway-proxy", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn runtime_has_no_product_words() {
        let clean = "struct Polling { pooling: u8, healthy: bool } // a pool of backends";
        assert_eq!(violations("ringway-runtime", clean), Vec::<String>::new());
        for text in [
            "struct BufferPool;",
            "mod pool;",
            "fn f(backends: u8) {}",
            "const HEALTH_MAX: u8 = 1;",
        ] {
            assert_eq!(violations("ringway-runtime", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn banned_crates_are_banned_as_dependencies_but_not_in_tests() {
        let with = |kind| check(&Workspace::default().with_package("ringway-proxy", &[("serde-saphyr", kind)]));
        assert_eq!(with(Kind::Normal).len(), 1);
        assert_eq!(with(Kind::Dev), Vec::<String>::new());
    }

    #[test]
    fn unsafe_stays_in_runtime() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(
            check_unsafe(&Workspace::default().with_source("crates/runtime/src/ring.rs", text)),
            Vec::<String>::new()
        );
        assert_eq!(
            check_unsafe(&Workspace::default().with_source("tests/src/lib.rs", text)).len(),
            1
        );
        let lint = "#![allow(unsafe_code)]";
        assert_eq!(
            check_unsafe(&Workspace::default().with_source("crates/proxy/src/lib.rs", lint)).len(),
            1
        );
    }
}
