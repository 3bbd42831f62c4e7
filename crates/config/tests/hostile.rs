//! Texts that were made to hurt: each ends quickly, and with an error that has a place.

use ringway_config::{Source, parse};
use std::time::{Duration, Instant};

/// A second is what a check may take in a release build; debug builds are some ten times slower, and machines are shared.
const CHECK_MAX: Duration = Duration::from_secs(10);

fn refusal(text: String) -> String {
    let begun = Instant::now();
    let diagnostics = parse(
        &[Source {
            name: "hostile.yaml".to_owned(),
            text,
        }],
        &|_| None,
    )
    .expect_err("hostile");
    assert!(begun.elapsed() < CHECK_MAX, "took {:?}: {diagnostics}", begun.elapsed());
    assert!(
        diagnostics
            .iter()
            .all(|diagnostic| diagnostic.place.line >= 1 && diagnostic.place.column >= 1)
    );
    diagnostics.to_string()
}

fn first_line(text: String) -> String {
    refusal(text).lines().next().unwrap_or("").to_owned()
}

#[test]
fn billion_laughs() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let said = first_line(text);
    assert!(said.ends_with("aliases multiply beyond every use"), "{said}");
}

#[test]
fn an_alias_of_itself() {
    assert_eq!(
        first_line("pools: &p { a: *p }".to_owned()),
        "hostile.yaml:1:16: this alias stands inside its own anchor"
    );
}

#[test]
fn deep_nesting() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        let beginning = text[..4].to_owned();
        let said = first_line(text);
        assert!(said.starts_with("hostile.yaml:1:"), "{beginning}: {said}");
    }
    let indented: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(
        first_line(indented),
        "hostile.yaml:33:33: lists and maps are nested too deeply"
    );
}

#[test]
fn a_scalar_of_ten_megabytes() {
    let text = format!("pools: {}", "x".repeat(10 << 20));
    assert_eq!(first_line(text), "hostile.yaml:1:1: the configuration is too large");
}

#[test]
fn as_large_as_may_be() {
    const ROOM: usize = (1 << 20) - 100;
    for text in [
        format!("pools: {}", "x".repeat(ROOM)),
        format!("pools: \"{}\"", "\\n".repeat(ROOM / 2)),
        format!("pools: [{}]", "a,".repeat(ROOM / 2)),
        format!("pools: [{}]", ",".repeat(ROOM)),
        "a: b\n".repeat(ROOM / 5),
        (0..ROOM / 12).map(|number| format!("k{number:07}: 1\n")).collect(),
        (0..ROOM / 12).map(|number| format!("{number:08}: 1\n")).collect(),
        format!(
            "pools: {{ {} }}",
            (0..9_000)
                .map(|number| format!("p{number}: {{ backend: [] }}, "))
                .collect::<String>()
        ),
        format!("pools: &a 1\nlisteners: [{}]", "*a,".repeat(ROOM / 3)),
        (0..ROOM / 14)
            .map(|number| format!("k{number:06}: &a{number}\n"))
            .collect(),
        "#\n".repeat(ROOM / 2),
        "---\n".repeat(ROOM / 4),
        "!".repeat(ROOM),
        "'".repeat(ROOM),
        "\t".repeat(ROOM),
        "\u{feff}".repeat(ROOM / 3),
        "|\n".repeat(ROOM / 2),
        "? a\n: b\n".repeat(ROOM / 8),
        format!("workers: \"{}\"", "${".repeat(2_000)),
        format!("workers: \"{}\"", "$${".repeat(1_300)),
    ] {
        refusal(text);
    }
}

#[test]
fn many_pools_and_as_many_names_that_miss_them() {
    let mut text = "listeners:\n".to_owned();
    for number in 0..1_000 {
        text.push_str(&format!(
            " l{number}: {{ bind: 10.0.0.1:{}, protocol: tcp, pool: {}{number:04} }}\n",
            number + 1,
            "x".repeat(58)
        ));
    }
    text.push_str("pools:\n");
    for number in 0..4_000 {
        text.push_str(&format!(
            " {}{number:04}y: {{ backends: 10.0.0.2:80 }}\n",
            "x".repeat(58)
        ));
    }
    let said = refusal(text);
    assert!(
        said.ends_with("900 more problems are not shown\n"),
        "{}",
        &said[said.len().saturating_sub(200)..]
    );
}

#[test]
fn a_full_configuration_is_accepted_in_time() {
    let mut text = "listeners:\n".to_owned();
    for number in 0..1_000 {
        text.push_str(&format!(
            "  l{number}: {{ bind: 10.0.0.1:{}, protocol: tcp, pool: p{number} }}\n",
            number + 1
        ));
    }
    text.push_str("pools:\n");
    for number in 0..1_000 {
        let backends: Vec<String> = (0..20).map(|host| format!("10.1.{}.{host}:80", number % 250)).collect();
        text.push_str(&format!("  p{number}: {{ backends: [{}] }}\n", backends.join(", ")));
    }
    let begun = Instant::now();
    let checked = parse(
        &[Source {
            name: "large.yaml".to_owned(),
            text,
        }],
        &|_| None,
    )
    .expect("valid");
    assert!(begun.elapsed() < CHECK_MAX, "took {:?}", begun.elapsed());
    assert_eq!(
        (checked.model.listeners.len(), checked.model.pools.len()),
        (1_000, 1_000)
    );
}
