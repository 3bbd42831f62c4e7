//! Names against a scripted DNS server: what is found, when it is asked for again, what removes an address.

use super::fake_server::{A, AAAA, FakeServer, SRV, Script, address, addresses, alias, answers, nothing, service};
use super::{Found, Outcome, Update, Watch, watch};
use crate::model::{Backend, Model, Name, Pool, PoolIndex, Records, Resolve, Target};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Within which everything that should happen has happened.
const PATIENCE: Duration = Duration::from_secs(9);

/// One pool that asks `servers`, with these names.
pub(super) fn pool(servers: &[SocketAddr], names: &[(&str, Records)]) -> Pool {
    let backend = |&(host, records): &(&str, Records)| {
        let name = Name {
            host: host.into(),
            records,
        };
        Backend::new(Target::Name(name), host)
    };
    Pool {
        resolve: Resolve {
            servers: servers.to_vec(),
            interval_min: Duration::from_secs(1),
            interval_max: Duration::from_secs(3600),
        },
        ..Pool::new("p", names.iter().map(backend).collect())
    }
}

pub(super) fn model(pools: Vec<Pool>) -> Model {
    Model::new(Vec::new(), pools)
}

/// Watches one name of one server.
pub(super) fn watch_one(server: &FakeServer, host: &str, records: Records) -> Watch {
    watch(&model(vec![pool(&[server.address()], &[(host, records)])])).unwrap()
}

pub(super) async fn next(watch: &mut Watch) -> Update {
    timeout(PATIENCE, watch.next()).await.expect("an update comes")
}

pub(super) async fn next_outcome(watch: &mut Watch) -> Outcome {
    next(watch).await.outcome
}

pub(super) fn found(list: &[&str]) -> Outcome {
    let plain = list.iter().map(|text| Found {
        address: text.parse().unwrap(),
        weight: None,
    });
    Outcome::Found(plain.collect())
}

fn weighted(list: &[(&str, u16)]) -> Outcome {
    let weighted = list.iter().map(|(text, weight)| Found {
        address: text.parse().unwrap(),
        weight: Some(*weight),
    });
    Outcome::Found(weighted.collect())
}

#[tokio::test]
async fn both_families_are_found_sorted_and_once_each() {
    let server = FakeServer::start();
    let list = ["10.0.0.2", "2001:db8::1", "10.0.0.1", "10.0.0.2"];
    addresses(&server, "db.test", 60, &list);
    let mut watch = watch_one(&server, "db.test", Records::Addresses(5432));
    let update = next(&mut watch).await;
    assert_eq!((update.pool, update.backend), (PoolIndex(0), 0));
    assert_eq!(
        update.outcome,
        found(&["10.0.0.1:5432", "10.0.0.2:5432", "[2001:db8::1]:5432"])
    );
}

#[tokio::test]
async fn a_name_with_addresses_of_ipv6_only_is_found() {
    let server = FakeServer::start();
    addresses(&server, "six.test", 60, &["2001:db8::6"]);
    let mut watch = watch_one(&server, "six.test", Records::Addresses(80));
    assert_eq!(next_outcome(&mut watch).await, found(&["[2001:db8::6]:80"]));
}

#[tokio::test]
async fn each_name_is_told_with_its_pool_and_its_position() {
    let server = FakeServer::start();
    addresses(&server, "a.test", 60, &["10.0.0.1"]);
    addresses(&server, "b.test", 60, &["10.0.0.2"]);
    let mut second = pool(
        &[server.address()],
        &[("b.test", Records::Addresses(2)), ("a.test", Records::Addresses(1))],
    );
    second.backends[0].target = Target::Address(crate::model::Address::Inet("10.9.9.9:9".parse().unwrap()));
    let first = pool(&[server.address()], &[("b.test", Records::Addresses(2))]);
    let mut watch = watch(&model(vec![first, second])).unwrap();
    assert_eq!(watch.names(), 2);
    let mut updates = [next(&mut watch).await, next(&mut watch).await];
    updates.sort_by_key(|update| update.pool.0);
    let expected = [(0, 0, "10.0.0.2:2"), (1, 1, "10.0.0.1:1")].map(|(pool, backend, address)| Update {
        pool: PoolIndex(pool),
        backend,
        outcome: found(&[address]),
    });
    assert_eq!(updates, expected);
}

#[tokio::test]
async fn after_the_ttl_a_changed_answer_counts_and_what_is_gone_is_gone() {
    let server = FakeServer::start();
    addresses(&server, "db.test", 1, &["10.0.0.1", "10.0.0.2"]);
    let mut watch = watch_one(&server, "db.test", Records::Addresses(1));
    assert_eq!(next_outcome(&mut watch).await, found(&["10.0.0.1:1", "10.0.0.2:1"]));
    let began = Instant::now();
    addresses(&server, "db.test", 3600, &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(next_outcome(&mut watch).await, found(&["10.0.0.2:1", "10.0.0.3:1"]));
    let time = began.elapsed();
    assert!(
        time > Duration::from_millis(900),
        "asked again before the TTL had ended: {time:?}"
    );
    assert_eq!(server.asked("db.test", A), 2);
}

#[tokio::test]
async fn interval_max_counts_where_the_ttl_is_longer_and_nothing_is_cached_below() {
    let server = FakeServer::start();
    addresses(&server, "db.test", 3600, &["10.0.0.1"]);
    let mut pool = pool(&[server.address()], &[("db.test", Records::Addresses(1))]);
    pool.resolve.interval_max = Duration::from_secs(1);
    let mut watch = watch(&model(vec![pool])).unwrap();
    assert_eq!(next_outcome(&mut watch).await, found(&["10.0.0.1:1"]));
    addresses(&server, "db.test", 3600, &["10.0.0.9"]);
    assert_eq!(next_outcome(&mut watch).await, found(&["10.0.0.9:1"]));
}

#[tokio::test]
async fn an_answer_that_stays_the_same_is_told_once() {
    let server = FakeServer::start();
    addresses(&server, "db.test", 1, &["10.0.0.1", "10.0.0.2"]);
    let mut watch = watch_one(&server, "db.test", Records::Addresses(1));
    assert_eq!(next_outcome(&mut watch).await, found(&["10.0.0.1:1", "10.0.0.2:1"]));
    // In another order it is the same answer.
    addresses(&server, "db.test", 1, &["10.0.0.2", "10.0.0.1"]);
    let quiet = timeout(Duration::from_millis(2500), watch.next()).await;
    assert!(quiet.is_err(), "told again: {quiet:?}");
    assert!(server.asked("db.test", A) >= 2, "it was not asked again");
}

#[tokio::test]
async fn aliases_are_followed_and_their_ttl_counts() {
    let server = FakeServer::start();
    let chain = |last: &str| {
        Script::Answer(answers(vec![
            alias("www.test", 1, "real.test"),
            address("real.test", 3600, last),
        ]))
    };
    server.set("www.test", A, chain("10.0.0.1"));
    server.set(
        "www.test",
        AAAA,
        Script::Answer(answers(vec![alias("www.test", 3600, "real.test")])),
    );
    addresses(&server, "real.test", 3600, &["2001:db8::1"]);
    let mut watch = watch_one(&server, "www.test", Records::Addresses(1));
    assert_eq!(
        next_outcome(&mut watch).await,
        found(&["10.0.0.1:1", "[2001:db8::1]:1"])
    );
    server.set("www.test", A, chain("10.0.0.2"));
    assert_eq!(
        next_outcome(&mut watch).await,
        found(&["10.0.0.2:1", "[2001:db8::1]:1"])
    );
}

#[tokio::test]
async fn an_answer_that_does_not_fit_comes_over_tcp_and_64_addresses_count() {
    let server = FakeServer::start();
    let many = (0..200)
        .rev()
        .map(|last| address("many.test", 60, &format!("10.0.0.{last}")));
    server.set("many.test", A, Script::TooLong(answers(many.collect())));
    server.set("many.test", AAAA, nothing(0, 60));
    let mut watch = watch_one(&server, "many.test", Records::Addresses(1));
    let expected: Vec<String> = (0..64).map(|last| format!("10.0.0.{last}:1")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(next_outcome(&mut watch).await, found(&expected));
    assert_eq!(server.asked_over_tcp(), 1);
}

#[tokio::test]
async fn of_services_the_lowest_priority_counts_with_weights_and_ports() {
    let server = FakeServer::start();
    let name = "_db._tcp.test";
    let mut reply = answers(vec![
        service(name, 60, (10, 0, 5001), "a.test"),
        service(name, 60, (10, 40_000, 5002), "b.test"),
        service(name, 60, (10, 20_000, 5003), "c.test"),
        service(name, 60, (20, 1, 5004), "backup.test"),
    ]);
    // One target comes along, the others have to be asked for.
    reply.additional = vec![address("a.test", 60, "10.0.0.1")];
    server.set(name, SRV, Script::Answer(reply));
    addresses(&server, "b.test", 60, &["10.0.0.2", "2001:db8::2"]);
    addresses(&server, "c.test", 60, &["10.0.0.3"]);
    let mut watch = watch_one(&server, name, Records::Services);
    let expected = [
        ("10.0.0.1:5001", 1),
        ("10.0.0.2:5002", 1000),
        ("10.0.0.3:5003", 500),
        ("[2001:db8::2]:5002", 1000),
    ];
    assert_eq!(next_outcome(&mut watch).await, weighted(&expected));
    assert_eq!((server.asked("a.test", A), server.asked("backup.test", A)), (0, 0));
}

#[tokio::test]
async fn services_behind_an_alias_are_found() {
    let server = FakeServer::start();
    let chain = vec![
        alias("_db._tcp.test", 60, "_db._tcp.other.test"),
        service("_db._tcp.other.test", 60, (1, 5, 5001), "a.test"),
    ];
    server.set("_db._tcp.test", SRV, Script::Answer(answers(chain)));
    server.set(
        "_db._tcp.test",
        5,
        Script::Answer(answers(vec![alias("_db._tcp.test", 60, "_db._tcp.other.test")])),
    );
    let own = vec![service("_db._tcp.other.test", 60, (1, 5, 5001), "a.test")];
    server.set("_db._tcp.other.test", SRV, Script::Answer(answers(own)));
    addresses(&server, "a.test", 60, &["10.0.0.1"]);
    server.set("a.test", SRV, nothing(0, 60));
    let mut watch = watch_one(&server, "_db._tcp.test", Records::Services);
    assert_eq!(next_outcome(&mut watch).await, weighted(&[("10.0.0.1:5001", 5)]));
}

#[tokio::test]
async fn a_service_at_the_root_is_no_service() {
    let server = FakeServer::start();
    let none = vec![service("_db._tcp.test", 60, (0, 0, 0), "")];
    server.set("_db._tcp.test", SRV, Script::Answer(answers(none)));
    let mut watch = watch_one(&server, "_db._tcp.test", Records::Services);
    let expected = "_db._tcp.test has no SRV records that lead to an address";
    assert_eq!(next_outcome(&mut watch).await, Outcome::Empty(expected.to_owned()));
}

#[tokio::test]
async fn localhost_is_known_without_a_server() {
    let server = FakeServer::start();
    let mut watch = watch_one(&server, "localhost", Records::Addresses(5432));
    let Outcome::Found(list) = next_outcome(&mut watch).await else {
        panic!("localhost is not found");
    };
    assert!(
        !list.is_empty() && list.iter().all(|found| found.address.ip().is_loopback()),
        "{list:?}"
    );
    assert_eq!(server.asked_in_all(), 0);
}

#[tokio::test]
async fn a_name_that_dns_cannot_carry_is_refused_with_a_sentence() {
    let label = "a".repeat(64);
    let refused = watch(&model(vec![pool(&[], &[(&label, Records::Addresses(1))])])).unwrap_err();
    assert!(
        refused.starts_with("pool \"p\": \"aaa") && refused.contains("1 to 63 characters"),
        "{refused}"
    );
}
