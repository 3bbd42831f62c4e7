//! What TLS libraries see, the acceptor of rustls and the server of OpenSSL: the name that we route by must be the name
//! that they serve.
//!
//! They may differ about who is refused, in these ways and no other:
//!
//! * We read what they refuse. They know what other extensions must hold, and look at versions, ciphers and signature
//!   schemes; rustls takes no name of more than 253 bytes, no label of more than 63 and no last label of digits. Such a
//!   connection ends at the backend, under the name that was read.
//! * We refuse as `bad_name` what OpenSSL takes: names with any byte but NUL, with empty labels, of no byte at all.
//! * We refuse as `bad_name` what rustls takes: one host name with an entry of an unknown type behind it.
//! * An address in place of a name: OpenSSL hands it on like a name, rustls says that there is none, we say
//!   `ServerName::Address`, which no route for a host matches.

use crate::captures::CAPTURES;
use crate::hostile::mutated;
use crate::seeded::{Rng, figure};
use crate::{ABSENT, ADDRESS, message_of, read};
use ringway_wire::hello::HelloError;
use ringway_wire::hello::forge::{self, Parts};
use rustls::server::Acceptor;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a library makes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It would go on with this name and these protocols, as the library tells them. OpenSSL does not tell protocols.
    Hello(Option<String>, Option<Vec<Vec<u8>>>),
    More,
    /// In its own words.
    Refused(String),
}

fn rustls_sees(stream: &[u8]) -> Seen {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    loop {
        let received = acceptor.read_tls(&mut rest);
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec);
                return Seen::Hello(hello.server_name().map(str::to_owned), Some(protocols.collect()));
            }
            Ok(None) => {}
            Err((error, _alert)) => return Seen::Refused(error.to_string()),
        }
        match received {
            Ok(0) => return Seen::More,
            Ok(_) => {}
            Err(error) => return Seen::Refused(error.to_string()),
        }
    }
}

/// OpenSSL in a child process of Python.
struct OpenSsl {
    child: Child,
    hellos: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl OpenSsl {
    /// `None` without Python, after saying so where `cargo xtask test` counts it.
    fn start(test: &str) -> Option<Self> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hello/openssl_sees.py");
        let mut python = Command::new("python3");
        python.arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match python.spawn() {
            Ok(child) => child,
            Err(error) => {
                // Not by `println!`, which tests that pass keep to themselves.
                let line = format!("SKIPPED|{test}|needs the program python3 ({error})\n");
                std::io::stdout().write_all(line.as_bytes()).expect("standard output");
                return None;
            }
        };
        let hellos = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut openssl = Self { child, hellos, answers };
        let version = openssl.line();
        println!("{version}");
        assert!(version.starts_with("OpenSSL "), "{version:?}");
        Some(openssl)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        assert!(line.ends_with('\n'), "it ended: {line:?}");
        line.trim_end().to_owned()
    }

    fn sees(&mut self, stream: &[u8]) -> Seen {
        let hexadecimal: String = stream.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.hellos, "{hexadecimal}").expect("it listens");
        let line = self.line();
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("name", name) => {
                let digits = |at| u8::from_str_radix(&name[at..at + 2], 16).expect("hexadecimal digits");
                let bytes = (0..name.len()).step_by(2).map(digits).collect();
                // An empty name is none for Python, too.
                Seen::Hello(
                    (!name.is_empty()).then(|| String::from_utf8(bytes).expect("ASCII")),
                    None,
                )
            }
            ("more", "") => Seen::More,
            ("refused", why) => Seen::Refused(why.to_owned()),
            _ => panic!("{line:?}"),
        }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

/// Whether a library's name is the one that we read.
fn is_same(ours: &str, theirs: Option<&str>, library: &str) -> bool {
    let normal = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match (ours, theirs.map(normal)) {
        (ABSENT, theirs) => theirs.is_none(),
        (ADDRESS, None) => library == "rustls",
        (ADDRESS, Some(theirs)) => library == "OpenSSL" && theirs.parse::<IpAddr>().is_ok(),
        (ours, theirs) => theirs.as_deref() == Some(ours),
    }
}

/// How often each combination of answers came.
#[derive(Default)]
struct Tally(BTreeMap<(&'static str, &'static str, &'static str), usize>);

impl Tally {
    fn compare(&mut self, library: &'static str, stream: &[u8], seen: &Seen) {
        let ours = read(stream);
        let theirs = match seen {
            Seen::Hello(..) => "reads",
            Seen::More => "wants more",
            Seen::Refused(_) => "refuses",
        };
        let we = match &ours {
            Ok(Some(_)) => "read",
            Ok(None) => "want more",
            Err(error) => error.label(),
        };
        *self.0.entry((library, theirs, we)).or_default() += 1;
        let same = match (&ours, seen) {
            (Ok(Some(said)), Seen::Hello(name, protocols)) => {
                let protocols = protocols.as_ref();
                is_same(&said.name, name.as_deref(), library) && protocols.is_none_or(|list| *list == said.protocols)
            }
            // They took for complete what is not.
            (Ok(None), Seen::Hello(..)) => false,
            (Err(error), Seen::Hello(name, _)) => {
                *error == HelloError::BadName && is_explained(library, name.as_deref())
            }
            (_, Seen::More | Seen::Refused(_)) => true,
        };
        assert!(same, "we: {ours:?}, {library}: {seen:?}, bytes: {stream:02x?}");
    }

    fn print(&self) {
        for ((library, theirs, we), count) in &self.0 {
            println!("{library} {theirs}, we: {we}: {count}");
        }
    }

    /// Hellos that both the library and we have read.
    fn read_by(&self, library: &'static str) -> usize {
        self.0.get(&(library, "reads", "read")).copied().unwrap_or(0)
    }
}

/// Whether we refuse a name for a reason that the module's documentation gives: OpenSSL's is no host name at all;
/// rustls knows host names, so that what it took had something behind it.
fn is_explained(library: &str, name: Option<&str>) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_host = |name: &str| {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.bytes().all(known) && name.split('.').all(|label| !label.is_empty())
    };
    library == "rustls" || !name.is_some_and(is_host)
}

fn both(test: &str, hellos: impl Iterator<Item = Vec<u8>>) -> Tally {
    let mut tally = Tally::default();
    let mut openssl = OpenSsl::start(test);
    for stream in hellos {
        tally.compare("rustls", &stream, &rustls_sees(&stream));
        if let Some(openssl) = &mut openssl {
            let seen = openssl.sees(&stream);
            tally.compare("OpenSSL", &stream, &seen);
        }
    }
    tally.print();
    tally
}

/// A hello from parts, most often with something odd about its name or its protocols.
fn odd(rng: &mut Rng) -> Vec<u8> {
    const NAMES: &[&[u8]] = &[
        b"a.example",
        b"A.Example",
        b"a.example.",
        b"b.example",
        b"a",
        b"a_b.example",
        b"-a.example",
        b"a-.example",
        b"1.2.3",
        b"1.2.3.4.5",
        b"a.1",
        b"256.1.1.1",
        b"01.2.3.4",
        b"192.0.2.1",
        b"192.0.2.1.",
        b"2001:db8::1",
        b"::ffff:192.0.2.1",
        b"[::1]",
        b"",
        b".",
        b"..",
        b".a",
        b"a..b",
        b"a b",
        b"*.example",
        b"a\0",
        b"a\0.example",
        b"\xC3\xBC.example",
        b"a\n",
    ];
    let long: Vec<u8> = [b"abcdefg.".repeat(32), b"ab".to_vec()].concat();
    let name = match rng.below(10) {
        // 250 to 258 bytes, where DNS and both libraries have their limits.
        0 => long[..250 + rng.below(9)].to_vec(),
        1 => vec![b'x'; 60 + rng.below(8)],
        _ => rng.pick(NAMES).to_vec(),
    };
    let mut extensions = vec![match rng.below(8) {
        0 => forge::server_names(&[(0, &name), (0, rng.pick(NAMES))]),
        1 => forge::server_names(&[(0, &name), (1 + rng.below(3) as u8, b"other")]),
        2 => forge::server_names(&[(1, b"other"), (0, &name)]),
        _ => forge::server_name(&name),
    }];
    match rng.below(6) {
        0 => extensions.push(forge::server_name(rng.pick(NAMES))),
        1 => extensions.clear(),
        2 => extensions.extend([forge::alpn(&[b"h2"]), forge::alpn(&[b"http/1.1"])]),
        3 => extensions.push(forge::alpn(&[b"h2", b""])),
        _ => extensions.push(forge::alpn(&[b"h2", b"http/1.1"])),
    }
    let mut parts = Parts::new(None, &[]);
    let place = rng.below(4);
    parts
        .extensions
        .as_mut()
        .expect("extensions")
        .splice(place..place, extensions);
    let sizes: Vec<usize> = (0..rng.below(4)).map(|_| 1 + rng.below(200)).collect();
    forge::records(&parts.message(), sizes)
}

/// Real hellos, as they came and cut into two records: we read each of them. rustls refuses those of TLS 1.0.
#[test]
fn real_hellos_have_the_same_name_for_all() {
    let cuts = CAPTURES.iter().flat_map(|capture| {
        let message = message_of(capture.bytes);
        let step = message.len().div_ceil(figure(7, 70));
        let cut = (1..message.len())
            .step_by(step)
            .map(|cut| forge::records(&message, [cut]))
            .collect::<Vec<_>>();
        [vec![capture.bytes.to_vec()], cut].concat()
    });
    let tally = both("real_hellos_have_the_same_name_for_all", cuts);
    assert!(tally.0.keys().all(|(_, _, we)| *we == "read"));
    assert!(tally.read_by("rustls") > 100);
    let openssl_is_here = tally.0.keys().any(|(library, _, _)| *library == "OpenSSL");
    assert!(!openssl_is_here || tally.read_by("OpenSSL") > 100);
}

#[test]
fn odd_hellos_have_the_same_name_for_all_who_read_them() {
    let mut rng = Rng::new("hello::differential::odd");
    let hellos = (0..figure(4_000, 40_000)).map(|_| odd(&mut rng));
    both("odd_hellos_have_the_same_name_for_all_who_read_them", hellos);
}

#[test]
fn changed_hellos_have_the_same_name_for_all_who_read_them() {
    let mut rng = Rng::new("hello::differential::changed");
    let hellos = (0..figure(6_000, 100_000)).map(|_| mutated(&mut rng));
    both("changed_hellos_have_the_same_name_for_all_who_read_them", hellos);
}
