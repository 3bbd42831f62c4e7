//! P22: nothing that a client sends can forge a log line or a label.

use crate::{SOON, first_of};
use ringway_tests::address::{Address, free_v4};
use ringway_tests::client::{many, run};
use ringway_tests::hello::Hello;
use ringway_tests::process::wait_for;
use ringway_tests::program::Dir;
use ringway_tests::promise::Promise;
use ringway_tests::proxy_header::{ALPN, AUTHORITY, UNIQUE_ID, v1, v2};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::setup::Setup;
use ringway_tests::tls::Witness;
use ringway_tests::wire::Dial;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// What clients send, each on a connection of its own.
struct Attempts {
    /// To the listener that takes hellos.
    hellos: Vec<Vec<u8>>,
    /// To the one that takes PROXY headers with hellos behind them.
    headers: Vec<Vec<u8>>,
}

impl Attempts {
    fn count(&self) -> usize {
        self.hellos.len() + self.headers.len()
    }
}

/// Every byte alone in the middle of a name, and all of them in one value.
fn attempts() -> Attempts {
    let all: Vec<u8> = (0..=255).collect();
    let forged = b"x\"}\n{\"event\":\"session\",\"listener\":\"forged\"}\n";
    let mut names: Vec<Vec<u8>> = all
        .iter()
        .map(|byte| [b"a", &[*byte][..], b"b.example.com"].concat())
        .collect();
    names.extend([
        all.clone(),
        forged.to_vec(),
        b"a.example.com\nevent=session listener=forged".to_vec(),
    ]);
    let (a, b) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
    let hello = Hello::to("a.example.com").bytes();
    let mut headers = Vec::new();
    for value in &names {
        let short = &value[..value.len().min(128)];
        for tlv in [
            (AUTHORITY, value.clone()),
            (UNIQUE_ID, short.to_vec()),
            (ALPN, value.clone()),
        ] {
            headers.push([v2(a, b, &[tlv]), hello.clone()].concat());
        }
        // In place of an address: no header at all.
        let line = String::from_utf8_lossy(&v1(a, b)).into_owned();
        let (before, after) = line.split_once("192.0.2.1").expect("the address");
        headers.push([before.as_bytes(), value, after.as_bytes(), &hello].concat());
    }
    let hellos = names.iter().map(|name| Hello::to(name).bytes());
    let protocols = names
        .iter()
        .filter_map(|name| Some(Hello::to("a.example.com").alpn(&[std::str::from_utf8(name).ok()?])));
    Attempts {
        hellos: hellos.chain(protocols.map(|hello| hello.bytes())).collect(),
        headers,
    }
}

/// Sends and waits for an answer or the end.
async fn send(dial: Dial, bytes: Vec<u8>) {
    let mut wire = dial.connect_within(SOON).await.expect("it listens");
    // Closed, perhaps: the log tells.
    let _ = wire.write_all(&bytes).await;
    let _ = wire.shutdown().await;
    let _ = wire.read_to_end_of(SOON).await;
}

fn send_all(front: &Address, attempts: &[Vec<u8>]) {
    let dial = Dial::to(front);
    run(
        None,
        many(attempts.len() as u64, 16, |index| {
            send(dial.clone(), attempts[index as usize].clone())
        }),
    );
}

/// The lines of the session log when there are so many, or after a while.
fn lines(file: &Path, wanted: usize) -> Vec<Vec<u8>> {
    let read = || {
        let text = std::fs::read(file).unwrap_or_default();
        text.split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    wait_for(SOON, || Some(read()).filter(|lines| lines.len() >= wanted)).unwrap_or_else(read)
}

/// Names in normal form have these characters only.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
}

/// What is wrong with a line in JSON.
fn json_fault(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line).into_owned();
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return Some(format!("{error}: {text}")),
    };
    let listener = value["listener"].as_str().unwrap_or_default();
    let sni = &value["sni"];
    let fine = value["event"] == "session"
        && ["hellos", "headers"].contains(&listener)
        && (sni.is_null() || sni.as_str().is_some_and(is_plain));
    (!fine).then_some(text)
}

/// What is wrong with a line in text.
fn text_fault(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line).into_owned();
    let printable = line[..line.len() - 1].iter().all(|byte| (0x20..0x7F).contains(byte));
    let words: Vec<_> = text.split(' ').collect();
    let once = |start: &str| words.iter().filter(|word| word.starts_with(start)).count() == 1;
    let own = words.contains(&"listener=hellos") || words.contains(&"listener=headers");
    let fine = printable && words.get(1) == Some(&"event=session") && once("listener=") && once("reason=") && own;
    (!fine).then_some(text)
}

/// Lines of the ordinary log that are not one JSON object each.
fn broken_log_lines(log: &str) -> Vec<String> {
    let broken = |line: &&str| !serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object());
    log.lines().filter(broken).map(str::to_owned).collect()
}

/// Names and labels of all series.
fn series(ringway: &Ringway) -> BTreeSet<String> {
    ringway.metrics().series()
}

/// The series before, and those that came with the attempts.
fn new_series(before: &BTreeSet<String>, ringway: &Ringway) -> Vec<String> {
    series(ringway).difference(before).cloned().collect()
}

#[test]
fn p22_nothing_sent_forges_a_line_or_a_label() {
    let _turn = Turn::start("p22_nothing_sent_forges_a_line_or_a_label", Duration::from_secs(120));
    let mut promise = Promise::new("P22", "nothing a client sends can forge a log line or a label");
    let (attempts, dir) = (attempts(), Dir::new());
    for (format, fault) in [
        ("json", json_fault as fn(&[u8]) -> Option<String>),
        ("text", text_fault),
    ] {
        let (witness, file) = (Witness::start("a"), dir.path(format));
        let (hellos, headers) = (free_v4(), free_v4());
        let routes = ["{ sni: \"*.example.com\", pool: pool }"];
        let setup = Setup::new()
            .top("workers", "2")
            .top(
                "session_log",
                &format!("{{ to: \"{}\", format: {format} }}", file.display()),
            )
            .tls_listener("hellos", &hellos, &routes)
            .tls_listener("headers", &headers, &routes)
            .listener_key("proxy_protocol", "{ accept: [v1, v2], from: [127.0.0.1/32] }")
            .pool("pool", "round_robin", &[&witness.address]);
        let ringway = Ringway::start(&setup);
        let before = series(&ringway);
        send_all(&hellos, &attempts.hellos);
        send_all(&headers, &attempts.headers);
        let (count, lines) = (attempts.count(), lines(&file, attempts.count()));
        promise.figure(
            format!("{count} sessions, {count} lines ({format})"),
            format!("{}", lines.len()),
            lines.len() == count,
        );
        let faults: Vec<_> = lines.iter().filter_map(|line| fault(line)).collect();
        promise.figure("each is one event of ours", first_of(&faults), faults.is_empty());
        let broken = broken_log_lines(&ringway.log());
        promise.figure("the ordinary log stays JSON", first_of(&broken), broken.is_empty());
        let added = new_series(&before, &ringway);
        promise.figure("no new label in /metrics", first_of(&added), added.is_empty());
        ringway.finish();
    }
    promise.finish();
}
