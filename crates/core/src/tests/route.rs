use crate::model::PoolIndex;
use crate::route::{Names, Routes};
use proptest::prelude::*;

fn exact(name: &str) -> Names {
    Names::Exact(name.into())
}

fn below(suffix: &str) -> Names {
    Names::Below(suffix.into())
}

fn routes(list: &[(Names, Option<&str>)]) -> Routes {
    let mut routes = Routes::default();
    for (index, (names, protocol)) in list.iter().enumerate() {
        assert_eq!(routes.add(names, protocol.map(str::as_bytes), PoolIndex(index)), None);
    }
    routes
}

fn find(routes: &Routes, name: Option<&str>, protocols: &[&str]) -> Option<usize> {
    let offered = protocols.iter().map(|protocol| protocol.as_bytes());
    routes.find(name, offered).map(|pool| pool.0)
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let list = [
        (Names::All, None),
        (Names::Any, None),
        (below("com"), None),
        (below("example.com"), None),
        (exact("a.example.com"), None),
        (exact("a.example.com"), Some("h2")),
    ];
    let routes = routes(&list);
    for (name, protocols, pool) in [
        (None, &[][..], 0),
        (Some("localhost"), &[], 1),
        (Some("example.com"), &[], 2),
        (Some("b.example.com"), &[], 3),
        (Some("x.y.example.com"), &[], 3),
        (Some("badexample.com"), &[], 2),
        (Some("a.example.com"), &[], 4),
        (Some("a.example.com"), &["http/1.1"], 4),
        (Some("a.example.com"), &["http/1.1", "h2"], 5),
        (Some("x.a.example.com"), &["h2"], 3),
    ] {
        assert_eq!(find(&routes, name, protocols), Some(pool), "{name:?} {protocols:?}");
    }
}

#[test]
fn a_name_whose_protocols_do_not_match_falls_to_the_next_route() {
    let routes = routes(&[
        (exact("a.example.com"), Some("h2")),
        (below("example.com"), Some("http/1.1")),
        (Names::All, Some("acme-tls/1")),
    ]);
    assert_eq!(find(&routes, Some("a.example.com"), &["http/1.1"]), Some(1));
    assert_eq!(find(&routes, Some("a.example.com"), &["acme-tls/1"]), Some(2));
    assert_eq!(find(&routes, None, &["acme-tls/1"]), Some(2));
    assert_eq!(find(&routes, Some("a.example.com"), &[]), None);
    assert_eq!(find(&routes, None, &["h2"]), None);
}

/// Both are routed: the client's own order decides (RFC 7301, section 3.1: most preferred first).
#[test]
fn of_several_protocols_the_clients_first_one_counts() {
    let routes = routes(&[(exact("a"), Some("h2")), (exact("a"), Some("http/1.1"))]);
    assert_eq!(find(&routes, Some("a"), &["http/1.1", "h2"]), Some(1));
    assert_eq!(find(&routes, Some("a"), &["x", "h2", "http/1.1"]), Some(0));
}

#[test]
fn a_second_route_for_the_same_is_refused_and_changes_nothing() {
    let mut routes = routes(&[(exact("a"), None), (exact("a"), Some("h2")), (Names::Any, None)]);
    let before = routes.clone();
    assert_eq!(routes.add(&exact("a"), None, PoolIndex(9)), Some(PoolIndex(0)));
    assert_eq!(routes.add(&exact("a"), Some(b"h2"), PoolIndex(9)), Some(PoolIndex(1)));
    assert_eq!(routes.add(&Names::Any, None, PoolIndex(9)), Some(PoolIndex(2)));
    assert_eq!(routes, before);
    let mut pools: Vec<usize> = routes.pools().map(|pool| pool.0).collect();
    pools.sort_unstable();
    assert_eq!(pools, [0, 1, 2]);
}

/// How many labels of a name a route fixes; more is more specific. `None`: it does not match.
fn specificity(names: &Names, name: Option<&str>) -> Option<usize> {
    let labels = |text: &str| text.split('.').count();
    match (names, name) {
        (Names::All, _) => Some(0),
        (Names::Any, name) => name.map(|_| 1),
        (Names::Below(suffix), Some(name)) => name
            .strip_suffix(&**suffix)
            .is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            .then(|| 1 + labels(suffix)),
        (Names::Exact(exact), Some(name)) => (**exact == *name).then_some(usize::MAX),
        (Names::Below(_) | Names::Exact(_), None) => None,
    }
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..5).prop_map(|labels| labels.join("."))
}

fn names() -> impl Strategy<Value = Names> {
    prop_oneof![
        4 => name().prop_map(|name| Names::Exact(name.into())),
        4 => name().prop_map(|name| Names::Below(name.into())),
        1 => Just(Names::Any),
        1 => Just(Names::All),
    ]
}

fn protocol() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("p"), Just("q"), Just("r")]
}

proptest! {
    /// Against a walk over the list that knows nothing of tables.
    #[test]
    fn as_a_list_would_say(
        list in proptest::collection::vec((names(), proptest::option::of(protocol())), 0..20),
        name in proptest::option::of(name()),
        offered in proptest::collection::vec(protocol(), 0..3),
    ) {
        let mut routes = Routes::default();
        let mut kept: Vec<(Names, Option<&str>, usize)> = Vec::new();
        for (index, (names, protocol)) in list.into_iter().enumerate() {
            let before = routes.add(&names, protocol.map(str::as_bytes), PoolIndex(index));
            let known = kept.iter().find(|(n, p, _)| *n == names && *p == protocol).map(|route| route.2);
            prop_assert_eq!(before.map(|pool| pool.0), known);
            if known.is_none() {
                kept.push((names, protocol, index));
            }
        }
        let rank = |protocol: Option<&str>| match protocol {
            // Earlier is better, none at all is worst.
            Some(protocol) => offered.iter().position(|o| *o == protocol).map(|at| usize::MAX - at),
            None => Some(0),
        };
        let best = kept
            .iter()
            .filter_map(|(names, protocol, pool)| {
                Some((specificity(names, name.as_deref())?, rank(*protocol)?, *pool))
            })
            .max();
        prop_assert_eq!(find(&routes, name.as_deref(), &offered), best.map(|best| best.2));
    }
}
