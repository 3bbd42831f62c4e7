use super::*;
use crate::values::duration;
use crate::{Source, parse};
use std::time::Duration;

/// Keys of a listener that say nothing of UDP and have no effect there.
const TCP_ONLY: [&str; 7] = [
    "backlog",
    "routing_timeout",
    "idle_timeout",
    "half_closed_timeout",
    "tcp_keepalive",
    "dead_peer_timeout",
    "max_connections",
];

fn body(place: Place, indent: &str) -> String {
    body_for(place, indent, "tcp")
}

fn body_for(place: Place, indent: &str, protocol: &str) -> String {
    let mut text = String::new();
    let applies = |key: &&Key| {
        place != Place::Listener
            || match protocol {
                "udp" => !TCP_ONLY.contains(&key.name) && !key.meaning.starts_with("TLS:"),
                "tls" => !key.meaning.starts_with("UDP:"),
                _ => !key.meaning.starts_with("UDP:") && !key.meaning.starts_with("TLS:"),
            }
    };
    for key in of(place).filter(applies) {
        let inner = match key.name {
            "admin" => Some(Place::Admin),
            "buffers" => Some(Place::Buffers),
            "hash" => Some(Place::Hash),
            "tcp_keepalive" => Some(Place::Keepalive),
            "passive" => Some(Place::Passive),
            "resolve" => Some(Place::Resolve),
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
    let udp = |keys: &str| {
        let text = "listeners:\n  a:\n    bind: 0.0.0.0:53\n    protocol: udp\n    pool: a\n";
        check(format!("{text}{keys}pools: {{ a: {{ backends: 10.0.0.1:53 }} }}\n"))
    };
    let keys = body_for(Place::Listener, "    ", "udp");
    assert!(keys.contains("session_timeout") && keys.contains("affinity"), "{keys}");
    assert_eq!(udp(&keys), udp(""));
    let tls = |keys: &str| {
        let text = "listeners:\n  a:\n    bind: 0.0.0.0:443\n    protocol: tls\n    routes: [{ sni: a, pool: a }]\n";
        check(format!("{text}{keys}pools: {{ a: {{ backends: 10.0.0.1:443 }} }}\n"))
    };
    let keys = body_for(Place::Listener, "    ", "tls");
    assert!(keys.contains("fallback") && keys.contains("hello_max"), "{keys}");
    assert_eq!(tls(&keys), tls(""));
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
                .chain(ANSWERS)
                .filter(|(at, ..)| *at == place)
                .map(|(_, typed, _)| typed),
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name is there twice in {}", place.words());
    }
}

/// Maps that are off when absent have defaults too, which hold once the map is there.
#[test]
fn every_documented_default_inside_of_what_is_off_is_the_default() {
    let check = |session_log: &str, queue: &str, health_check: &str| {
        let text = format!(
            "session_log: {session_log}\nlisteners: {{ a: {{ bind: 0.0.0.0:80, protocol: tcp, pool: a }} }}\npools:\n  a:\n    \
             queue: {queue}\n    health_check: {health_check}\n    backends: [{{ address: 10.0.0.1:80, max_connections: 1 }}]\n"
        );
        let source = Source {
            name: "t".to_owned(),
            text: text.clone(),
        };
        let checked = parse(&[source], &|_| None).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
        checked.model
    };
    // The keys of one map that apply to `protocol`, each with its default.
    let written = |place: Place, first: &str, left_out: &[&str]| {
        let same = of(place).filter_map(|key| match key.absent {
            Absent::Same(value) if !left_out.contains(&key.name) => Some(format!(", {}: {value}", key.name)),
            _ => None,
        });
        format!("{{ {first}{} }}", same.collect::<String>())
    };
    let log = written(Place::SessionLog, "to: stderr", &[]);
    let queue = written(Place::Queue, "max: 5", &[]);
    let tls = written(Place::ProbeTls, "server_name: a", &[]);
    let https = written(
        Place::HealthCheck,
        &format!("protocol: https, tls: {tls}"),
        &["protocol"],
    );
    let tcp = written(Place::HealthCheck, "port: 80", &["method", "path", "status"]);
    assert!(log.contains("format") && queue.contains("timeout") && tls.contains("verify") && https.contains("status"));
    assert!(tcp.contains("protocol: tcp") && tcp.contains("passes"));
    assert_eq!(
        check(&log, &queue, &https),
        check("stderr", "{ max: 5 }", "{ protocol: https, tls: { server_name: a } }")
    );
    assert_eq!(check("off", "off", &tcp), check("off", "off", "{ port: 80 }"), "{tcp}");
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
        Err(_) if high.ends_with('B') => {
            let unit = high.trim_start_matches(|c: char| c.is_ascii_digit());
            let number: u64 = high[..high.len() - unit.len()].parse().expect(high);
            format!("{}{unit}", 2 * number)
        }
        Err(_) if high.ends_with("/s") => format!("{}/s", high[..high.len() - 2].parse::<u64>().expect(high) + 1),
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
            // The shortest time may only be long beside a longest one.
            let beside = if key.name == "min_interval" {
                ", max_interval: 1d"
            } else {
                ""
            };
            format!("{}: {value}{beside}", key.name)
        } else {
            String::new()
        }
    };
    let text = format!(
        "{}\nadmin: {{ {} }}\nbuffers: {{ {} }}\nlisteners: {{ a: {{ tcp_keepalive: {{ {} }}, {} }} }}\n\
         pools: {{ a: {{ hash: {{ {} }}, queue: {{ {} }}, health_check: {{ {} }}, passive: {{ {} }}, resolve: {{ {} }}, \
         backends: [ {{ address: 10.0.0.1:80, {} }} ], {} }} }}\n",
        at(Place::Top),
        at(Place::Admin),
        at(Place::Buffers),
        at(Place::Keepalive),
        at(Place::Listener),
        at(Place::Hash),
        at(Place::Queue),
        at(Place::HealthCheck),
        at(Place::Passive),
        at(Place::Resolve),
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
    assert_eq!(ranges, 48, "every key that takes a range");
}

#[test]
fn what_is_suggested_exists() {
    for (place, typed, right) in ELSEWHERE {
        assert!(of(*place).any(|key| key.name == *right), "{typed} -> {right}");
    }
}

#[test]
fn typing_errors_in_new_maps_are_understood() {
    for (place, typed, meant) in [
        (Place::Pool, "helth_check", "health_check"),
        (Place::Pool, "slow_strat", "slow_start"),
        (Place::Pool, "pasive", "passive"),
        (Place::Pool, "max_lifetme", "max_lifetime"),
        (Place::HealthCheck, "intervall", "interval"),
        (Place::HealthCheck, "protocl", "protocol"),
        (Place::ProbeTls, "servername", "server_name"),
        (Place::Passive, "max_ejcted", "max_ejected"),
        (Place::Queue, "timout", "timeout"),
        (Place::Resolve, "min_intervall", "min_interval"),
        (Place::Backend, "max_connectons", "max_connections"),
        (Place::Backend, "bakup", "backup"),
        (Place::SessionLog, "fromat", "format"),
        (Place::Hash, "maxload", "max_load"),
        (Place::Listener, "fallbak", "fallback"),
        (Place::Listener, "proxy_protocl", "proxy_protocol"),
        (Place::Route, "apln", "alpn"),
        (Place::ProxyProtocol, "form", "from"),
        (Place::Pool, "send_prox", "send_proxy"),
        (Place::SendProxy, "check_sum", "checksum"),
    ] {
        match find(place, typed) {
            Found::Unknown { meant: Some(found), .. } => assert_eq!(found, meant, "{typed}"),
            _ => panic!("{typed} is not understood"),
        }
    }
}
