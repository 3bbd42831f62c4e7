//! Choosing a backend, exact over two workers and equal on every node.

use ringway_tests::address::Address;
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{many, run};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// The names that clients of 127.0.0.0/8 get to hear at this listener, by client.
fn names_heard(front: &Address, clients: u64) -> Vec<String> {
    let heard = run(
        None,
        many(clients, 64, |client| {
            let from = Some([127, 1, (client >> 8) as u8, client as u8].into());
            let dial = Dial {
                from,
                ..Dial::to(front)
            };
            async move {
                (
                    client,
                    async { dial.connect().await?.line(SOON).await }
                        .await
                        .expect("a name comes"),
                )
            }
        }),
    );
    let mut heard = heard;
    heard.sort_unstable();
    heard.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn ip_hash_agrees_whatever_the_order_of_backends() {
    let _turn = Turn::start(
        "ip_hash_agrees_whatever_the_order_of_backends",
        Duration::from_secs(120),
    );
    // Addresses that do not change with the order; rendezvous and Maglev hash them.
    let backends: Vec<_> = (0..7)
        .map(|n| Backend::start(Behaviour::Name(format!("backend {n}"))))
        .collect();
    let addresses: Vec<_> = backends.iter().map(|backend| &backend.address).collect();
    let reversed: Vec<_> = addresses.iter().rev().copied().collect();
    let clients = figure(2_000, 20_000);
    for algorithm in ["rendezvous", "maglev"] {
        let heard = [&addresses, &reversed].map(|order| {
            let (setup, front) = Setup::simple("ip_hash", order);
            let ringway = Ringway::start(&setup.pool_key("hash", &format!("{{ algorithm: {algorithm} }}")));
            let heard = names_heard(&front, clients);
            ringway.finish();
            heard
        });
        let differ = heard[0]
            .iter()
            .zip(&heard[1])
            .filter(|(one, other)| one != other)
            .count();
        assert_eq!(differ, 0, "{algorithm}: clients that went elsewhere, of {clients}");
        let mut names = heard[0].clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 7, "{algorithm}: every backend has clients");
    }
}

#[test]
fn round_robin_is_exact_over_two_workers() {
    let _turn = Turn::start("round_robin_is_exact_over_two_workers", Duration::from_secs(120));
    let backends: Vec<_> = (0..3).map(|n| Backend::start(Behaviour::Name(n.to_string()))).collect();
    let addresses: Vec<_> = backends.iter().map(|backend| &backend.address).collect();
    let (setup, front) = Setup::simple("round_robin", &addresses);
    let ringway = Ringway::start(&setup);
    let count = figure(3_000, 30_000);
    let heard = run(
        None,
        many(count, 64, |_| {
            let dial = Dial::to(&front);
            async move { dial.connect().await?.line(SOON).await }
        }),
    );
    let errors: Vec<_> = heard.iter().filter_map(|name| name.as_ref().err()).collect();
    assert!(errors.is_empty(), "{} errors, the first: {:?}", errors.len(), errors[0]);
    let accepted: Vec<_> = backends.iter().map(Backend::accepted).collect();
    assert_eq!(accepted.iter().sum::<u64>(), count);
    let spread = accepted.iter().max().expect("three") - accepted.iter().min().expect("three");
    assert!(spread <= 1, "connections per backend: {accepted:?}");
    ringway.finish();
}

#[test]
fn least_connections_is_exact_over_two_workers() {
    let _turn = Turn::start("least_connections_is_exact_over_two_workers", Duration::from_secs(60));
    for _ in 0..figure(3, 20) {
        let backends: Vec<_> = (0..10)
            .map(|n| Backend::start(Behaviour::Name(n.to_string())))
            .collect();
        let addresses: Vec<_> = backends.iter().map(|backend| &backend.address).collect();
        let (setup, front) = Setup::simple("least_connections", &addresses);
        let ringway = Ringway::start(&setup);
        run(None, async {
            let held = many(100, 64, |_| {
                let dial = Dial::to(&front);
                async move {
                    let mut wire = dial.connect().await.expect("the listener accepts");
                    wire.line(SOON).await.expect("a name comes");
                    wire
                }
            });
            let held = held.await;
            let open: Vec<_> = backends.iter().map(Backend::open).collect();
            assert_eq!(open.iter().sum::<u64>(), 100);
            let spread = open.iter().max().expect("ten") - open.iter().min().expect("ten");
            assert!(spread <= 1, "connections held per backend: {open:?}");
            assert_eq!(ringway.count("ringway_backend_connections", &[("pool", "pool")]), 100);
            drop(held);
        });
        ringway.finish();
    }
}
