use super::*;
use crate::values::duration;
use crate::{Source, parse};
use std::time::Duration;

fn body(place: Place, indent: &str) -> String {
    let mut text = String::new();
    for key in of(place) {
        let inner = match key.name {
            "admin" => Some(Place::Admin),
            "buffers" => Some(Place::Buffers),
            "hash" => Some(Place::Hash),
            "tcp_keepalive" => Some(Place::Keepalive),
            _ => None,
        };
        match (key.absent, inner) {
            (Absent::Same(value), _) => text.push_str(&format!("{indent}{}: {value}\n", key.name)),
            (Absent::Inner, Some(inner)) => {
                text.push_str(&format!(
                    "{indent}{}:\n{}",
                    key.name,
                    body(inner, &format!("{indent}  "))
                ));
            }
            (Absent::Inner, None) => panic!("{} is a map that this test does not know", key.name),
            (Absent::Required | Absent::Means(_), _) => {}
        }
    }
    text
}

#[test]
fn every_documented_default_is_the_default() {
    let check = |text: String| {
        parse(
            &[Source {
                name: "t".to_owned(),
                text: text.clone(),
            }],
            &|_| None,
        )
        .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
        .model
    };
    let written = check(format!(
        "{}listeners:\n  a:\n    bind: 0.0.0.0:80\n    protocol: tcp\n    pool: a\n{}pools:\n  a:\n    backends:\n      \
         - address: 10.0.0.1:80\n{}{}",
        body(Place::Top, ""),
        body(Place::Listener, "    "),
        body(Place::Backend, "        "),
        body(Place::Pool, "    "),
    ));
    let absent = check(
        "listeners: { a: { bind: 0.0.0.0:80, protocol: tcp, pool: a } }\npools: { a: { backends: 10.0.0.1:80 } }"
            .to_owned(),
    );
    assert_eq!(written, absent);
}

#[test]
fn a_name_means_one_thing_in_its_place() {
    for place in Place::ALL {
        let mut names: Vec<&str> = of(place)
            .flat_map(|key| key.aliases.iter().copied().chain([key.name]))
            .collect();
        names.extend(
            LATER
                .iter()
                .filter(|(at, _)| *at == place)
                .flat_map(|(_, names)| names.iter()),
        );
        names.extend(
            ELSEWHERE
                .iter()
                .filter(|(at, ..)| *at == place)
                .map(|(_, typed, _)| typed),
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name is there twice in {}", place.words());
    }
}

/// `A to B` of the reference, and the next value above B.
fn range(takes: &str) -> Option<(&str, &str, String)> {
    let (low, rest) = takes
        .rsplit_once(", or ")
        .map_or(takes, |(_, range)| range)
        .split_once(" to ")?;
    let low = low.rsplit(' ').next()?;
    let high = rest.split(',').next()?;
    let above = match high.parse::<u128>() {
        Ok(number) => (number + 1).to_string(),
        Err(_) if high.ends_with('B') => "2MiB".to_owned(),
        Err(_) => {
            let any = crate::limits::Span {
                min: Duration::ZERO,
                max: Duration::MAX,
                default: Duration::ZERO,
            };
            duration::show(duration::parse(high, any).expect(high) + Duration::from_secs(1))
        }
    };
    Some((low, high, above))
}

/// Whether `key` takes `value`: no problem of the configuration mentions it.
fn takes(key: &Key, value: &str) -> bool {
    let at = |place: Place| {
        if key.place == place {
            format!("{}: {value}", key.name)
        } else {
            String::new()
        }
    };
    let text = format!(
        "{}\nadmin: {{ {} }}\nbuffers: {{ {} }}\nlisteners: {{ a: {{ tcp_keepalive: {{ {} }}, {} }} }}\n\
         pools: {{ a: {{ hash: {{ {} }}, backends: [ {{ address: 10.0.0.1:80, {} }} ], {} }} }}\n",
        at(Place::Top),
        at(Place::Admin),
        at(Place::Buffers),
        at(Place::Keepalive),
        at(Place::Listener),
        at(Place::Hash),
        at(Place::Backend),
        at(Place::Pool),
    );
    // The listener has no bind, so there is always a problem to look at.
    let problems = parse(
        &[Source {
            name: "t".to_owned(),
            text,
        }],
        &|_| None,
    )
    .expect_err("no bind");
    let mut messages = problems.iter().map(|problem| &problem.message);
    !messages.any(|message| message.starts_with(key.name) || message.contains(&format!(".{} ", key.name)))
}

#[test]
fn documented_ranges_are_the_ranges() {
    let mut ranges = 0;
    for key in KEYS {
        let Some((low, high, above)) = range(key.takes) else {
            continue;
        };
        ranges += 1;
        assert!(takes(key, low), "{} {low}", key.name);
        assert!(takes(key, high), "{} {high}", key.name);
        assert!(!takes(key, &above), "{} {above}", key.name);
    }
    assert_eq!(ranges, 19, "every key that takes a range");
}

#[test]
fn what_is_suggested_exists() {
    for (place, typed, right) in ELSEWHERE {
        assert!(of(*place).any(|key| key.name == *right), "{typed} -> {right}");
    }
}
