//! docs/configuration.md says what is true: its reference is the table of keys, its samples are valid.

use ringway_config::{Checked, Source, parse, reference};
use std::fs;
use std::path::PathBuf;

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

fn check(text: &str) -> Checked {
    let source = Source {
        name: "sample.yaml".to_owned(),
        text: text.to_owned(),
    };
    parse(&[source], &|_| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// The fenced YAML blocks of the page.
fn samples(page: &str) -> Vec<&str> {
    page.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the fence is closed").0)
        .collect()
}

#[test]
fn the_reference_is_the_table_of_keys() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let (before, rest) = text.split_once("<!-- reference:").expect("the marker");
    let (marker, rest) = rest.split_once("-->\n").expect("the marker ends");
    let (_, after) = rest.split_once("<!-- end of reference -->").expect("the end marker");
    let expected = format!(
        "{before}<!-- reference:{marker}-->\n\n{}\n<!-- end of reference -->{after}",
        reference()
    );
    if std::env::var("RINGWAY_GOLDEN").is_ok_and(|value| value == "rewrite") {
        fs::write(page(), &expected).expect("write docs/configuration.md");
    } else {
        assert!(
            text == expected,
            "docs/configuration.md is stale: RINGWAY_GOLDEN=rewrite cargo test -p ringway-config"
        );
    }
}

#[test]
fn every_sample_is_valid_without_warnings() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let samples = samples(&text);
    assert_eq!(samples.len(), 2);
    for sample in samples {
        assert_eq!(check(sample).warnings.to_string(), "");
    }
}

#[test]
fn what_the_complete_sample_shows_as_default_is_the_default() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let shown = check(samples(&text)[1]).model;
    let bare = check(
        "listeners:
  postgres: { bind: 0.0.0.0:5432, protocol: tcp, pool: postgres, backlog: 4096, max_connections: 20000 }
  redis: { bind: [10.0.0.1:6379, '[2001:db8::1]:6379', unix:/run/ringway/redis.sock], protocol: tcp, pool: redis }
pools:
  postgres:
    source: [10.0.0.2, 10.0.0.3]
    backends: [10.0.0.11:5432, { address: 10.0.0.12:5432, weight: 2 }, 10.0.0.13:5432]
  redis:
    balance: ip_hash
    backends: [10.0.1.11:6379, 10.0.1.12:6379, unix:/run/redis/redis.sock]
",
    );
    assert_eq!(shown, bare.model);
}

#[test]
fn the_complete_sample_has_every_key() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let sample = samples(&text)[1];
    let keys: Vec<String> = reference()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    assert!(keys.len() > 30, "only {} keys in the reference", keys.len());
    for key in keys {
        assert!(
            sample.contains(&format!("{key}:")),
            "{key} is not in the complete sample"
        );
    }
}
