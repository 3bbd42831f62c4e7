//! P13: no PROXY header can mislead.

use crate::SOON;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{many, run};
use ringway_tests::promise::Promise;
use ringway_tests::proxy_header::{LINE_MAX, SIGNATURE, Verdict, any, v1, v2, verdict};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::seeded::Rng;
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What follows a header.
const PAYLOAD: &[u8] = b"\x16\x03\x01 payload";

/// Headers are made and played so many at a time.
const BATCH: u64 = 5_000;

/// What a client sends before it ends.
fn damaged(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = any(rng);
    let header = bytes.len();
    let place = |rng: &mut Rng| rng.below(header as u64) as usize;
    match rng.below(8) {
        0 => {
            bytes.truncate(place(rng));
            return bytes;
        }
        1 => {
            bytes.remove(place(rng));
        }
        2 => bytes.insert(place(rng), rng.bits() as u8),
        3 => {
            // Lengths that reach too far, or not far enough.
            let at = if bytes.starts_with(&SIGNATURE) {
                14 + rng.below(2) as usize
            } else {
                place(rng)
            };
            bytes[at] = bytes[at].wrapping_add(1 + rng.below(255) as u8);
        }
        4 => {
            // A line without an end; the longest one that has one is 107 bytes.
            bytes = b"PROXY TCP4 ".to_vec();
            bytes.resize(LINE_MAX - 4 + rng.below(8) as usize, b'1');
            bytes.extend(b"\r\n");
        }
        5 => {
            bytes = (0..rng.below(300)).map(|_| rng.bits() as u8).collect();
        }
        _ => {
            for _ in 0..=rng.below(3) {
                let at = place(rng);
                bytes[at] ^= 1 << rng.below(8);
            }
        }
    }
    bytes.extend(PAYLOAD);
    bytes
}

/// Sends everything, ends, and gives what came back: an echoing backend's bytes, or none.
async fn play(dial: Dial, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut wire = dial.connect_within(SOON).await?;
    let talk = async {
        // Closed in the middle of it, perhaps; what came back tells.
        let _ = wire.write_all(&bytes).await;
        let _ = wire.shutdown().await;
        let mut back = Vec::new();
        match wire.read_to_end(&mut back).await {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Ok(_) | Err(_) => Ok(back),
        }
    };
    tokio::time::timeout(SOON, talk)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// What became of many.
#[derive(Debug, Default)]
struct Tally {
    /// Backends that a client reached for certain, and those that it may have reached.
    reached: u64,
    perhaps: u64,
    closed: u64,
    wrong: Vec<String>,
}

impl Tally {
    fn judge(&mut self, bytes: &[u8], back: io::Result<Vec<u8>>) {
        let back = match back {
            Ok(back) => back,
            Err(error) => return self.wrong.push(format!("{error}: {}", bytes.escape_ascii())),
        };
        let verdict = verdict(bytes);
        let exact = match verdict {
            Verdict::Valid(length) => back == bytes[length..],
            Verdict::Invalid => back.is_empty(),
            Verdict::Either(length) => back.is_empty() || back == bytes[length..],
        };
        if !exact {
            self.wrong.push(format!(
                "{verdict:?}: {} gave {}",
                bytes.escape_ascii(),
                back.escape_ascii()
            ));
        }
        match verdict {
            _ if !back.is_empty() => self.reached += 1,
            Verdict::Valid(length) | Verdict::Either(length) if length == bytes.len() => self.perhaps += 1,
            Verdict::Valid(_) | Verdict::Either(_) | Verdict::Invalid => self.closed += 1,
        }
    }
}

fn play_many(dial: &Dial, rng: &mut Rng, count: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..count.div_ceil(BATCH) {
        let sent: Vec<_> = (0..BATCH.min(count)).map(|_| damaged(rng)).collect();
        let answers = run(
            None,
            many(sent.len() as u64, 64, |index| {
                let (dial, bytes) = (dial.clone(), sent[index as usize].clone());
                async move { (index, play(dial, bytes).await) }
            }),
        );
        for (index, back) in answers {
            tally.judge(&sent[index as usize], back);
        }
    }
    tally
}

struct Stage {
    backend: Backend,
    ringway: Ringway,
    both: Address,
    only: [Address; 2],
}

impl Stage {
    fn start() -> Self {
        let backend = Backend::start(Behaviour::Echo);
        let (both, only) = (free_v4(), [free_v4(), free_v4()]);
        let mut setup = Setup::new().top("workers", "2");
        for (name, bind, accept) in [
            ("both", &both, "v1, v2"),
            ("v1", &only[0], "v1"),
            ("v2", &only[1], "v2"),
        ] {
            let value = format!("{{ accept: [{accept}], from: [127.0.0.1/32] }}");
            setup = setup
                .listener(name, bind, "pool")
                .listener_key("proxy_protocol", &value);
        }
        let setup = setup.pool("pool", "round_robin", &[&backend.address]);
        Self {
            ringway: Ringway::start(&setup),
            backend,
            both,
            only,
        }
    }
}

#[test]
fn p13_no_proxy_header_can_mislead() {
    let mut turn = Turn::start("p13_no_proxy_header_can_mislead", Duration::from_secs(1_200));
    let mut promise = Promise::new("P13", "no PROXY header can mislead");
    let stage = Stage::start();
    let count = figure(20_000, 1_000_000);
    let tally = play_many(&Dial::to(&stage.both), &mut turn.rng, count);
    let (served, seen) = (tally.reached..=tally.reached + tally.perhaps, stage.backend.accepted());
    promise.figure(
        format!("{count} damaged headers: exactly what follows a valid one, else nothing"),
        crate::first_of(&tally.wrong),
        tally.wrong.is_empty(),
    );
    promise.figure(
        format!("only the {} valid ones reach a backend", tally.reached),
        format!("{seen} did, of {} closed none", tally.closed),
        served.contains(&seen),
    );
    let counted = stage.ringway.ended("bad_proxy_header") + stage.ringway.ended("client_left");
    promise.figure(
        format!("{} counted as closed before they were routed", tally.closed),
        format!("{counted}"),
        (tally.closed..=tally.closed + tally.perhaps).contains(&counted),
    );
    // From others even the best header is nothing: they are closed before they are read.
    let strangers = figure(200, 10_000);
    let header = v2(([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into(), &[]);
    let stranger = Dial {
        from: Some([127, 0, 0, 2].into()),
        ..Dial::to(&stage.both)
    };
    let ends = run(
        None,
        many(strangers, 64, |_| stranger_end(stranger.clone(), header.clone())),
    );
    let answered = ends
        .iter()
        .filter(|end| !matches!(end, Ok(seen) if seen.is_empty()))
        .count();
    let refused = stage
        .ringway
        .count("ringway_refused_total", &[("reason", "untrusted_proxy")]);
    promise.at_most(
        &format!("of {strangers} untrusted senders answered or kept"),
        answered,
        0,
    );
    promise.figure(
        format!("{strangers} counted as untrusted"),
        format!("{refused}"),
        refused == strangers,
    );
    let seen = stage.backend.accepted() - seen;
    promise.at_most("backend connections for them", seen, 0);
    promise.finish();
    stage.ringway.finish();
}

/// A reset may already come while connecting: then nothing came back either.
async fn stranger_end(dial: Dial, header: Vec<u8>) -> io::Result<Vec<u8>> {
    match play(dial, [&header[..], PAYLOAD].concat()).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Vec::new()),
        other => other,
    }
}

/// A version that is not wanted is as bad as none.
#[test]
fn only_the_versions_that_are_accepted() {
    let _turn = Turn::start("only_the_versions_that_are_accepted", Duration::from_secs(60));
    let stage = Stage::start();
    let (a, b) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
    let headers = [v1(a, b), v2(a, b, &[])];
    for (own, header) in headers.iter().enumerate() {
        for (other, front) in stage.only.iter().enumerate() {
            let bytes = [header, PAYLOAD].concat();
            let back = run(None, play(Dial::to(front), bytes)).expect("an end");
            let wanted = if own == other { PAYLOAD } else { &[] };
            assert_eq!(
                back,
                wanted,
                "version {} at a listener for version {}",
                own + 1,
                other + 1
            );
        }
    }
    assert_eq!(stage.ringway.ended("bad_proxy_header"), 2);
    assert_eq!(stage.backend.accepted(), 2);
    stage.ringway.finish();
}

/// Chance makes what it is meant to make: of each verdict a good part.
#[test]
fn damage_is_done() {
    let mut turn = Turn::start("damage_is_done", Duration::from_secs(60));
    let mut seen = [0; 3];
    for _ in 0..2_000 {
        let bytes = damaged(&mut turn.rng);
        let index = match verdict(&bytes) {
            Verdict::Valid(length) => {
                assert!(length <= bytes.len());
                0
            }
            Verdict::Invalid => 1,
            Verdict::Either(_) => 2,
        };
        seen[index] += 1;
    }
    assert!(seen[0] >= 100 && seen[1] >= 1_000 && seen[2] >= 20, "{seen:?}");
}
