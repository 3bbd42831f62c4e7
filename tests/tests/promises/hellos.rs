//! P12: no ClientHello can mislead.

use crate::SOON;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::client::{many, run};
use ringway_tests::hello::{Hello, RECORD_MAX, handshake, in_records, in_two_records, record, record_of};
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::seeded::Rng;
use ringway_tests::setup::Setup;
use ringway_tests::tls::Witness;
use ringway_tests::wire::{Dial, Wire};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// What is to become of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// The line of the witness: its name, and the name that rustls reads.
    Served(String),
    /// Closed without a byte, for this reason.
    Closed(&'static str),
}

/// A hello on its way.
#[derive(Clone, Debug)]
struct Case {
    label: String,
    /// Which of the two listeners.
    front: Front,
    bytes: Vec<u8>,
    /// Bytes of each segment, the last one perhaps shorter.
    segment: usize,
    /// Whether the client ends behind it.
    ends: bool,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    /// The defaults: at most 16 KiB, no fallback.
    Strict,
    /// At most 64 KiB, and a fallback.
    Wide,
}

impl Case {
    fn new(label: impl Into<String>, bytes: Vec<u8>, fate: Fate) -> Self {
        Self {
            label: label.into(),
            front: Front::Strict,
            segment: bytes.len().max(1),
            bytes,
            ends: false,
            fate,
        }
    }

    fn served(label: impl Into<String>, bytes: Vec<u8>, line: &str) -> Self {
        Self::new(label, bytes, Fate::Served(line.to_owned()))
    }

    fn closed(label: impl Into<String>, bytes: Vec<u8>, reason: &'static str) -> Self {
        Self::new(label, bytes, Fate::Closed(reason))
    }

    fn in_segments(mut self, segment: usize) -> Self {
        self.segment = segment;
        self
    }

    fn wide(mut self) -> Self {
        self.front = Front::Wide;
        self
    }

    fn ends(mut self) -> Self {
        self.ends = true;
        self
    }

    /// Sends it; the line that came back, `None` if it was closed without one.
    async fn play(&self, dial: Dial) -> io::Result<Option<String>> {
        let mut wire = dial.connect_within(SOON).await?;
        // Closed in the middle of it, perhaps: then there is no line.
        let _ = self.send(&mut wire).await;
        match wire.line(SOON).await {
            Ok(line) => Ok(Some(line)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn send(&self, wire: &mut Wire) -> io::Result<()> {
        for segment in self.bytes.chunks(self.segment) {
            wire.write_all(segment).await?;
            tokio::task::yield_now().await;
        }
        if self.ends { wire.shutdown().await } else { Ok(()) }
    }
}

const A: &str = "a.example.com";
const A_LINE: &str = "a a.example.com";

/// However a good hello is cut, it arrives; 16 KiB included.
fn cut_in_every_way() -> Vec<Case> {
    let message = Hello::to(A).alpn(&["h2"]).message();
    let whole = record(&message);
    let mut cases = vec![
        Case::served("as it is", whole.clone(), A_LINE),
        Case::served("in segments of a byte", whole.clone(), A_LINE).in_segments(1),
        Case::served("in records of a byte", in_records(&message, 1), A_LINE),
        Case::served("in records and segments of a byte", in_records(&message, 1), A_LINE).in_segments(1),
        Case::served(
            "what follows is not looked at",
            [&whole[..], b"anything"].concat(),
            A_LINE,
        ),
    ];
    for cut in 1..message.len() {
        cases.push(Case::served(
            format!("in two records, cut at {cut}"),
            in_two_records(&message, cut),
            A_LINE,
        ));
        let bytes = whole.clone();
        cases.push(Case::served(format!("in segments of {cut}"), bytes, A_LINE).in_segments(cut));
    }
    for (where_, hello) in [("first", Hello::to(A)), ("last", Hello::to(A).name_last())] {
        let big = hello.padded_to(16 << 10);
        let message = big.message();
        let label = |what: &str| format!("16 KiB, the name {where_}, {what}");
        cases.push(Case::served(label("whole"), big.bytes(), A_LINE));
        // More than the 65,535 bytes that rustls keeps, headers of records included: it is the bytes that count.
        cases.push(Case::served(
            label("in records of a byte"),
            in_records(&message, 1),
            "a !",
        ));
        let less = hello.padded_to(10_000).message();
        cases.push(Case::served(
            format!("10,000 bytes in records of a byte, the name {where_}"),
            in_records(&less, 1),
            A_LINE,
        ));
        cases.push(Case::served(label("in segments of 97"), big.bytes(), A_LINE).in_segments(97));
        let more = hello.padded_to((16 << 10) + 1);
        cases.push(Case::closed(label("and a byte"), more.bytes(), "hello_too_large"));
        let wide = hello.padded_to(65_000).bytes();
        cases.push(Case::served(format!("65,000 bytes, the name {where_}"), wide, A_LINE).wide());
        let most = hello.padded_to(64 << 10).bytes();
        cases.push(Case::served(format!("64 KiB, the name {where_}"), most, "a !").wide());
        let more = hello.padded_to((64 << 10) + 1);
        cases.push(
            Case::closed(
                format!("64 KiB and a byte, the name {where_}"),
                more.bytes(),
                "hello_too_large",
            )
            .wide(),
        );
    }
    cases
}

/// Names and what they lead to.
fn names() -> Vec<Case> {
    let to = |name: &str| Hello::to(name).bytes();
    let mut cases = vec![
        Case::served("another name", to("b.example.com"), "b b.example.com"),
        Case::served("a wildcard", to("www.example.com"), "wild www.example.com"),
        Case::served("a wildcard, more labels", to("x.a.example.com"), "wild x.a.example.com"),
        Case::served("upper case", to("A.eXample.COM"), A_LINE),
        Case::served("a trailing dot", to("a.example.com."), A_LINE),
        Case::served(
            "a trailing dot, upper case, a wildcard",
            to("WWW.Example.com."),
            "wild www.example.com",
        ),
        Case::closed("the wildcard's own name", to("example.com"), "no_route"),
        Case::closed("a name that ends so", to("a.example.com.evil.org"), "no_route"),
        Case::closed("a name that begins otherwise", to("xa.example.org"), "no_route"),
        Case::closed("no name", Hello::nameless().bytes(), "no_route"),
        Case::served("no name, with a fallback", Hello::nameless().bytes(), "fallback -").wide(),
        Case::served(
            "another name, with a fallback",
            to("example.org"),
            "fallback example.org",
        )
        .wide(),
        Case::closed("an address as name", to("192.0.2.1"), "no_route"),
        Case::served("an address as name, with a fallback", to("192.0.2.1"), "fallback -").wide(),
    ];
    let bad = [
        ("two names", Hello::to(A).name(0, "b.example.com")),
        ("the same name twice", Hello::to(A).name(0, A)),
        ("a name of another kind behind", Hello::to(A).name(1, "b.example.com")),
        ("a name of another kind only", Hello::nameless().name(1, A)),
        ("an empty name", Hello::to("")),
        ("a name of a dot", Hello::to(".")),
        ("an empty label", Hello::to("a..example.com")),
        ("a name cut by NUL", Hello::to(b"a.example.com\0.evil.org")),
        ("a space", Hello::to("a.example.com ")),
        ("a wildcard as name", Hello::to("*.example.com")),
        ("a name with a port", Hello::to("a.example.com:443")),
        ("a slash", Hello::to("a.example.com/")),
        ("a name beyond ASCII", Hello::to("ä.example.com")),
        ("256 bytes", Hello::to([&[b'x'; 244][..], b".example.com"].concat())),
    ];
    for (label, hello) in bad {
        // A fallback is for what can be read.
        cases.push(Case::closed(label, hello.bytes(), "bad_hello"));
        cases.push(Case::closed(format!("{label}, with a fallback"), hello.bytes(), "bad_hello").wide());
    }
    cases
}

/// What is no hello, or stops being one.
fn no_hellos() -> Vec<Case> {
    let message = Hello::to(A).message();
    let (head, tail) = message.split_at(100);
    let between = |other: Vec<u8>| [record(head), other, record(tail)].concat();
    let mut of_tls_13 = record(&message);
    of_tls_13[1] = 4;
    // SSLv2: two bytes of length, CLIENT-HELLO, version 3.1 (RFC 5246, appendix E.2).
    let ssl2 = [&[0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16][..], &[0; 37]].concat();
    let mut longer = message.clone();
    longer[3] += 1;
    let bad = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("SSLv2", ssl2),
        ("zeroes", vec![0; 64]),
        ("an alert", record_of(21, &[1, 0])),
        ("application data", record_of(23, &message)),
        ("another version of records", of_tls_13),
        ("an empty record", between(record(&[]))),
        ("an alert in between", between(record_of(21, &[1, 0]))),
        ("a change of cipher in between", between(record_of(20, &[1]))),
        ("application data in between", between(record_of(23, tail))),
        ("a ServerHello", record(&handshake(2, &message[4..]))),
        (
            "a record that is too long",
            [&[22, 3, 1, 0x40, 0x01][..], &vec![0; RECORD_MAX + 1]].concat(),
        ),
        (
            "a length that reaches too far",
            [record(&longer), record(&[0])].concat(),
        ),
        ("a hello of nothing", record(&handshake(1, &[]))),
    ];
    let mut cases = Vec::new();
    for (label, bytes) in bad {
        cases.push(Case::closed(label, bytes.clone(), "bad_hello"));
        cases.push(Case::closed(format!("{label}, with a fallback"), bytes, "bad_hello").wide());
    }
    for cut in [0, 1, 4, 5, 6, 8, 9, 50, message.len() + 4] {
        let bytes = record(&message)[..cut].to_vec();
        cases.push(Case::closed(format!("the end after {cut} bytes"), bytes, "client_left").ends());
    }
    cases
}

/// Hellos as chance makes them.
fn by_chance(rng: &mut Rng, count: u64) -> Vec<Case> {
    let routes = [
        ("a.example.com", "a a.example.com"),
        ("A.EXAMPLE.COM", "a a.example.com"),
        ("b.example.com", "b b.example.com"),
        ("one.example.com", "wild one.example.com"),
        ("one.two.three.example.com", "wild one.two.three.example.com"),
        ("example.net", ""),
    ];
    let case = |number| {
        let (name, line) = routes[rng.below(routes.len() as u64) as usize];
        let mut hello = Hello::to(name).padded_to(rng.below(16_385) as usize);
        if rng.below(2) == 0 {
            hello = hello.name_last();
        }
        if rng.below(2) == 0 {
            hello = hello.alpn(&["h2", "http/1.1"]);
        }
        let (message, mut bytes, mut at) = (hello.message(), Vec::new(), 0);
        let longest = [3, 50, 1_000, RECORD_MAX as u64][rng.below(4) as usize];
        while at < message.len() {
            let end = (at + 1 + rng.below(longest) as usize).min(message.len());
            bytes.extend(record(&message[at..end]));
            at = end;
        }
        let segment = 1 + rng.below(bytes.len() as u64) as usize;
        let label = format!("by chance, number {number}");
        let case = match line {
            "" => Case::closed(label, bytes, "no_route"),
            line => Case::served(label, bytes, line),
        };
        case.in_segments(segment)
    };
    (0..count).map(case).collect()
}

/// Plays all; a sentence for each whose fate was another one.
fn play(cases: &[Case], strict: &Address, wide: &Address) -> Vec<String> {
    let fates = run(
        None,
        many(cases.len() as u64, 64, |index| {
            let case = cases[index as usize].clone();
            let dial = Dial::to(if case.front == Front::Strict { strict } else { wide });
            async move {
                let seen = case.play(dial).await;
                let wanted = match &case.fate {
                    Fate::Served(line) => Some(line.as_str()),
                    Fate::Closed(_) => None,
                };
                match seen {
                    Ok(seen) if seen.as_deref() == wanted => None,
                    other => Some(format!("{}: {other:?}, not {:?}", case.label, case.fate)),
                }
            }
        }),
    );
    fates.into_iter().flatten().collect()
}

struct Stage {
    witnesses: [Witness; 4],
    ringway: Ringway,
    strict: Address,
    wide: Address,
}

impl Stage {
    fn start() -> Self {
        let witnesses = ["a", "b", "wild", "fallback"].map(Witness::start);
        let (strict, wide) = (free_v4(), free_v4());
        let routes = [
            "{ sni: a.example.com, pool: a }",
            "{ sni: b.example.com, pool: b }",
            "{ sni: \"*.example.com\", pool: wild }",
        ];
        let mut setup = Setup::new()
            .top("workers", "2")
            .tls_listener("strict", &strict, &routes)
            .tls_listener("wide", &wide, &routes)
            .listener_key("hello_max", "64KiB")
            .listener_key("fallback", "fallback");
        for (name, witness) in ["a", "b", "wild", "fallback"].into_iter().zip(&witnesses) {
            setup = setup.pool(name, "round_robin", &[&witness.address]);
        }
        Self {
            ringway: Ringway::start(&setup),
            witnesses,
            strict,
            wide,
        }
    }
}

#[test]
fn p12_no_hello_can_mislead() {
    let mut turn = Turn::start("p12_no_hello_can_mislead", Duration::from_secs(300));
    let mut promise = Promise::new("P12", "no ClientHello can mislead");
    let stage = Stage::start();
    let cases = [
        cut_in_every_way(),
        names(),
        no_hellos(),
        by_chance(&mut turn.rng, figure(300, 20_000)),
    ]
    .concat();
    let wrong = play(&cases, &stage.strict, &stage.wide);
    let served = |case: &&Case| matches!(case.fate, Fate::Served(_));
    let (count, to_serve) = (cases.len(), cases.iter().filter(served).count());
    promise.figure(
        format!("{count} hellos: the backend of the name that its library reads, or closed"),
        crate::first_of(&wrong),
        wrong.is_empty(),
    );
    stage.ringway.settle();
    let arrived = stage.witnesses.iter().map(Witness::arrived);
    let arrived = arrived.fold((0, 0), |sum, seen| (sum.0 + seen.0, sum.1 + seen.1));
    let sent: usize = cases.iter().filter(served).map(|case| case.bytes.len()).sum();
    promise.figure(
        format!("only {to_serve} reach backends, with exactly {sent} bytes"),
        format!("{} with {} bytes", arrived.0, arrived.1),
        arrived == (to_serve as u64, sent as u64),
    );
    for reason in ["bad_hello", "hello_too_large", "no_route", "client_left"] {
        let wanted = cases.iter().filter(|case| case.fate == Fate::Closed(reason)).count() as u64;
        let seen = stage.ringway.ended(reason);
        promise.figure(
            format!("{wanted} closed as {reason}"),
            format!("{seen}"),
            seen == wanted,
        );
    }
    promise.finish();
    stage.ringway.finish();
}

/// The cases themselves, without a balancer: what rustls reads in those that are to be served is what they say, and what
/// is to be closed for its form it does not read either.
#[test]
fn hellos_are_what_they_are_said_to_be() {
    let mut turn = Turn::start("hellos_are_what_they_are_said_to_be", Duration::from_secs(60));
    let all = [cut_in_every_way(), names(), no_hellos(), by_chance(&mut turn.rng, 300)].concat();
    let witness = Witness::start("w");
    let name_of = |line: &str| line.split_once(' ').expect("two words").1.to_owned();
    for case in all {
        let line = run(None, case.play(Dial::to(&witness.address)));
        let line = line.expect("the witness answers or the client ends");
        let read = line.as_deref().map(name_of);
        match &case.fate {
            Fate::Served(line) => assert_eq!(read, Some(name_of(line)), "{}", case.label),
            // rustls takes the first name of a kind that it knows; OpenSSL refuses such a list.
            Fate::Closed("bad_hello") if case.label.starts_with("a name of another kind behind") => {}
            Fate::Closed("bad_hello") => assert_eq!(read.as_deref(), Some("!"), "{}", case.label),
            Fate::Closed("client_left") => assert_eq!(read, None, "{}", case.label),
            Fate::Closed(_) => {}
        }
    }
}
