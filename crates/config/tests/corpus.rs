//! The fuzz body on every file of `corpus/` and of `tests/golden/`, and on seeded mutations of them.
//!
//! A finding of the fuzzer becomes a file in `corpus/`. `RINGWAY_CONFIG_SEED` and `RINGWAY_CONFIG_MUTATIONS` replay or
//! widen the mutations.

use ringway_config::fuzz_body;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

/// As in `hostile.rs`: a second in a release build, with room for debug builds on a shared machine.
const CHECK_MAX: Duration = Duration::from_secs(10);

fn corpus() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["corpus", "tests/golden"] {
        for entry in fs::read_dir(root.join(directory)).expect(directory) {
            let path = entry.expect("entry").path();
            if path.is_file() && path.extension().is_none_or(|extension| extension != "txt") {
                files.push((path.display().to_string(), fs::read(&path).expect("a corpus file")));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_corpus_keeps_every_promise() {
    let corpus = corpus();
    assert!(corpus.len() >= 30, "only {} files", corpus.len());
    for (name, data) in corpus {
        let begun = Instant::now();
        assert!(catch_unwind(|| fuzz_body(&data)).is_ok(), "{name}");
        assert!(begun.elapsed() < CHECK_MAX, "{name} took {:?}", begun.elapsed());
    }
}

#[test]
fn every_prefix_of_a_configuration_keeps_every_promise() {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/complete.yaml")).expect("corpus");
    for end in 0..text.len() {
        assert!(
            catch_unwind(|| fuzz_body(&text[..end])).is_ok(),
            "the first {end} bytes"
        );
    }
}

#[test]
fn mutations_keep_every_promise() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("RINGWAY_CONFIG_SEED", 0x5249_4e47);
    let mutations = number("RINGWAY_CONFIG_MUTATIONS", 5_000);
    println!("replay: RINGWAY_CONFIG_SEED={seed} cargo test -p ringway-config --test corpus");
    let corpus = corpus();
    let mut random = Random(seed);
    for count in 0..mutations {
        let mut data = corpus[random.below(corpus.len())].1.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut data, &corpus, &mut random);
        }
        let begun = Instant::now();
        let held = catch_unwind(|| fuzz_body(&data)).is_ok();
        assert!(
            held,
            "seed {seed}, mutation {count}: {:?}",
            String::from_utf8_lossy(&data)
        );
        assert!(
            begun.elapsed() < CHECK_MAX,
            "seed {seed}, mutation {count} took {:?}",
            begun.elapsed()
        );
    }
}

/// What configuration files are made of; whole words reach further than single bytes.
const WORDS: [&str; 40] = [
    "listeners:",
    "pools:",
    "bind:",
    "backends:",
    "health_check:",
    "protocol: http",
    "send_expect",
    "status: 200-399",
    "tls: true",
    "resolve:",
    "max_load: 1.25",
    "backup: true",
    "srv:",
    "a.example.:80",
    "\\x",
    "off",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "&a ",
    "*a",
    "!!str ",
    "'",
    "\"",
    "${PORT}",
    "$${",
    "0",
    "18446744073709551616",
    "1h",
    "5s",
    "[::1]:80",
    "unix:/x",
    "\u{feff}",
    "é",
    "<<: ",
];

fn mutate(data: &mut Vec<u8>, corpus: &[(String, Vec<u8>)], random: &mut Random) {
    let at = random.below(data.len() + 1);
    match random.below(6) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 => {
            let end = (at + 1 + random.below(16)).min(data.len());
            data.drain(at..end);
        }
        2 => {
            let word = WORDS[random.below(WORDS.len())];
            data.splice(at..at, word.bytes());
        }
        3 => {
            let end = (at + random.below(64)).min(data.len());
            let piece = data[at..end].to_vec();
            let to = random.below(data.len() + 1);
            data.splice(to..to, piece);
        }
        4 => {
            let other = &corpus[random.below(corpus.len())].1;
            let from = random.below(other.len() + 1);
            let end = (from + random.below(200)).min(other.len());
            data.splice(at..at, other[from..end].iter().copied());
        }
        _ => data.truncate(at),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % limit as u64) as usize
    }
}
