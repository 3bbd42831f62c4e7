use crate::access::{Access, Network, NetworkSet};
use crate::session::{ClientLimits, Clients, Exceeded};
use proptest::prelude::*;
use std::hash::RandomState;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address in the test")
}

fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').expect("a prefix in the test");
    Network::containing(ip(address), prefix.parse().expect("a number")).expect("a network in the test")
}

fn set(networks: &[&str]) -> NetworkSet {
    networks.iter().map(|text| network(text)).collect()
}

#[test]
fn a_network_is_its_first_bits() {
    let eight = network("10.1.2.3/8");
    assert_eq!((eight.address(), eight.prefix()), (ip("10.0.0.0"), 8));
    for (text, inside) in [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("9.255.255.255", false),
        ("11.0.0.0", false),
        ("::ffff:10.1.1.1", true),
        ("a00::", false),
    ] {
        assert_eq!(eight.contains(ip(text)), inside, "{text}");
    }
    let all = network("0.0.0.0/0");
    assert!(all.contains(ip("255.255.255.255")) && !all.contains(ip("::1")));
    assert!(network("::/0").contains(ip("::1")) && !network("::/0").contains(ip("::ffff:10.0.0.1")));
    assert!(eight.covers(&network("10.6.6.0/24")) && !network("10.6.6.0/24").covers(&eight));
    assert!(eight.covers(&eight) && !network("::/0").covers(&eight));
    assert_eq!(Network::containing(ip("10.0.0.0"), 33), None);
    assert_eq!(Network::containing(ip("::"), 129), None);
    // The same network, written as IPv6; half of one is none.
    assert_eq!(Network::containing(ip("::ffff:10.0.0.0"), 104), Some(eight));
    assert_eq!(Network::containing(ip("::ffff:10.0.0.0"), 90), None);
    assert_eq!(Network::of_one(ip("::ffff:10.1.2.3")), network("10.1.2.3/32"));
}

#[test]
fn networks_are_shown_as_they_are_written() {
    for text in ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0"] {
        assert_eq!(network(text).to_string(), text);
    }
    assert_eq!(network("192.0.2.7/32").to_string(), "192.0.2.7");
    assert_eq!(network("::1/128").to_string(), "::1");
}

#[test]
fn the_longest_network_around_an_address_is_found() {
    let set = set(&[
        "10.0.0.0/8",
        "10.6.0.0/16",
        "10.6.6.6/32",
        "10.255.0.0/16",
        "255.255.255.255/32",
        "2001:db8::/32",
    ]);
    for (text, longest) in [
        ("9.255.255.255", None),
        ("10.0.0.0", Some(8)),
        ("10.6.6.5", Some(16)),
        ("10.6.6.6", Some(32)),
        ("::ffff:10.6.6.6", Some(32)),
        ("10.6.6.7", Some(16)),
        ("10.7.0.0", Some(8)),
        ("10.255.255.255", Some(16)),
        ("11.0.0.0", None),
        ("255.255.255.254", None),
        ("255.255.255.255", Some(32)),
        ("2001:db8:ffff::", Some(32)),
        ("2001:db9::", None),
        ("::", None),
    ] {
        assert_eq!(set.longest(ip(text)), longest, "{text}");
    }
    assert!(NetworkSet::default().is_empty() && !set.is_empty());
    assert_eq!(NetworkSet::default().longest(ip("10.0.0.1")), None);
}

/// Line by line what the reference of `allow` and `deny` promises.
#[test]
fn the_longer_prefix_wins_and_deny_wins_a_tie() {
    let access = |allow: Option<&[&str]>, deny: &[&str]| Access {
        allow: allow.map(set),
        deny: set(deny),
    };
    let office: &[&str] = &["10.0.0.0/8", "192.0.2.0/24"];
    for (access, text, may) in [
        (Access::default(), "203.0.113.1", true),
        (access(None, &["203.0.113.0/24"]), "203.0.113.1", false),
        (access(None, &["203.0.113.0/24"]), "203.0.114.1", true),
        (access(None, &["0.0.0.0/0"]), "203.0.113.1", false),
        (access(None, &["0.0.0.0/0"]), "2001:db8::1", true),
        (access(Some(office), &[]), "10.1.1.1", true),
        (access(Some(office), &[]), "203.0.113.1", false),
        (access(Some(office), &[]), "2001:db8::1", false),
        (access(Some(office), &["10.6.6.0/24"]), "10.6.6.1", false),
        (access(Some(office), &["10.6.6.0/24"]), "10.6.7.1", true),
        // Let in again, out of what is denied, out of what is allowed.
        (
            access(Some(&["10.0.0.0/8", "10.6.6.7/32"]), &["10.6.6.0/24"]),
            "10.6.6.7",
            true,
        ),
        (
            access(Some(&["10.0.0.0/8", "10.6.6.7/32"]), &["10.6.6.0/24"]),
            "10.6.6.8",
            false,
        ),
        (access(Some(&["10.0.0.0/8"]), &["10.0.0.0/8"]), "10.1.1.1", false),
        (access(Some(&["10.0.0.0/8"]), &["0.0.0.0/0"]), "10.1.1.1", true),
        (
            access(Some(&["10.0.0.0/8"]), &["10.6.6.0/24"]),
            "::ffff:10.6.6.1",
            false,
        ),
    ] {
        assert_eq!(access.permits(ip(text)), may, "{access:?} {text}");
    }
    assert!(Access::default().is_open());
    assert!(!access(None, &["10.0.0.0/8"]).is_open());
    assert!(!access(Some(office), &[]).is_open());
    let nobody = Access {
        allow: Some(NetworkSet::default()),
        ..Access::default()
    };
    assert!(!nobody.is_open() && !nobody.permits(ip("10.0.0.1")));
}

/// Addresses of few bits, so that networks nest and touch; some at either end of all addresses.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (any::<u8>(), prop_oneof![Just(0_u32), Just(u32::MAX)]).prop_map(|(few, rest)| {
        Ipv4Addr::from_bits((u32::from(few & 0xf0) << 24) | (rest & 0x0fff_fff0) | u32::from(few & 0x0f))
    });
    let v6 = (any::<u8>(), prop_oneof![Just(0_u128), Just(u128::MAX)]).prop_map(|(few, rest)| {
        Ipv6Addr::from_bits((u128::from(few & 0xf0) << 120) | (rest & (u128::MAX >> 4) & !0xf) | u128::from(few & 0x0f))
    });
    prop_oneof![
        v4.clone().prop_map(IpAddr::from),
        v4.prop_map(|v4| IpAddr::from(v4.to_ipv6_mapped())),
        v6.prop_map(IpAddr::from),
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
    ]
}

/// As it was written: an address and how many bits of it count.
fn written() -> impl Strategy<Value = (IpAddr, u8)> {
    (address(), any::<u8>()).prop_map(|(address, bits)| {
        let address = address.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        (address, bits % (most + 1))
    })
}

/// Another way to the same answer: bit by bit.
fn matches(&(network, prefix): &(IpAddr, u8), address: IpAddr) -> bool {
    let bit_strings = |address: IpAddr| -> String {
        let octets = match address.to_canonical() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        octets.iter().map(|octet| format!("{octet:08b}")).collect()
    };
    let (network, address) = (bit_strings(network), bit_strings(address));
    network.len() == address.len() && network[..prefix.into()] == address[..prefix.into()]
}

proptest! {
    #[test]
    fn a_set_says_what_a_list_says(
        networks in proptest::collection::vec(written(), 0..24),
        asked in proptest::collection::vec(address(), 1..16),
    ) {
        let set: NetworkSet = networks.iter().map(|&(address, prefix)| Network::containing(address, prefix).expect("fits")).collect();
        // Where the answer may change: at the networks' own addresses and right beside them.
        let edges = networks.iter().flat_map(|&(address, prefix)| edges(address, prefix));
        for address in asked.into_iter().chain(edges) {
            let longest = networks.iter().filter(|written| matches(written, address)).map(|(_, prefix)| *prefix).max();
            prop_assert_eq!(set.longest(address), longest, "{}", address);
            prop_assert_eq!(set.contains(address), longest.is_some());
        }
    }

    #[test]
    fn access_says_what_lists_say(
        allow in proptest::option::of(proptest::collection::vec(written(), 0..8)),
        deny in proptest::collection::vec(written(), 0..8),
        asked in proptest::collection::vec(address(), 1..16),
    ) {
        let set = |list: &[(IpAddr, u8)]| -> NetworkSet {
            list.iter().map(|&(address, prefix)| Network::containing(address, prefix).expect("fits")).collect()
        };
        let access = Access { allow: allow.as_deref().map(set), deny: set(&deny) };
        let edges = deny.iter().flat_map(|&(address, prefix)| edges(address, prefix)).collect::<Vec<_>>();
        for address in asked.into_iter().chain(edges) {
            let best = |list: &[(IpAddr, u8)]| {
                list.iter().filter(|written| matches(written, address)).map(|(_, prefix)| i32::from(*prefix)).max()
            };
            let allowed = match &allow {
                None => Some(-1),
                Some(list) => best(list),
            };
            let may = match (allowed, best(&deny)) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(allowed), Some(denied)) => allowed > denied,
            };
            prop_assert_eq!(access.permits(address), may, "{}", address);
        }
    }
}

/// The first and the last address of a network, and those beside them.
fn edges(address: IpAddr, prefix: u8) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let beyond = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let (first, last) = (v4.to_bits() & !beyond, v4.to_bits() | beyond);
            let all = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            all.map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))).to_vec()
        }
        IpAddr::V6(v6) => {
            let beyond = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let (first, last) = (v6.to_bits() & !beyond, v6.to_bits() | beyond);
            let all = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            all.map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))).to_vec()
        }
    }
}

const NOW: Duration = Duration::from_secs(1_000);

#[test]
fn connections_of_one_client_are_bounded_in_number() {
    let limits = ClientLimits {
        sessions: Some(10),
        ..ClientLimits::default()
    };
    let clients = Clients::new(limits, RandomState::new());
    let admit = |text: &str| clients.admit(ip(text), NOW);
    let open: Vec<_> = (0..10).map(|_| admit("192.0.2.1").expect("within the bound")).collect();
    assert!(open.iter().all(Option::is_some), "each is given back one day");
    assert_eq!(admit("192.0.2.1").err(), Some(Exceeded::Connections));
    assert_eq!(
        admit("::ffff:192.0.2.1").err(),
        Some(Exceeded::Connections),
        "the same client"
    );
    assert!(admit("192.0.2.2").is_ok(), "another one");
    assert!(
        admit("::ffff:192.0.2.2").is_ok(),
        "not of one network with all that are mapped"
    );
    drop(open);
    assert!(admit("192.0.2.1").is_ok());
    assert_eq!(size_of::<Option<crate::session::ClientGuard>>(), size_of::<usize>());
}

#[test]
fn connections_of_one_client_are_bounded_in_rate() {
    // 10 a second, two at once.
    let limits = ClientLimits {
        interval: Some(Duration::from_millis(100)),
        burst: 2,
        sessions: None,
    };
    let clients = Clients::new(limits, RandomState::new());
    let at = |text: &str, ms| {
        clients
            .admit(ip(text), NOW + Duration::from_millis(ms))
            .map(|guard| guard.is_none())
    };
    // Worked out by hand. Without a bound on their number there is nothing to give back.
    assert_eq!([at("2001:db8::1", 0), at("2001:db8::2", 0)], [Ok(true), Ok(true)]);
    assert_eq!(at("2001:db8::3", 99), Err(Exceeded::Rate), "the same /64");
    assert_eq!(at("2001:db8:0:1::3", 99), Ok(true), "another one");
    assert_eq!(
        [at("2001:db8::4", 100), at("2001:db8::5", 100)],
        [Ok(true), Err(Exceeded::Rate)]
    );
}

#[test]
fn what_is_refused_takes_nothing_from_the_other_bound() {
    let limits = ClientLimits {
        interval: Some(Duration::from_millis(100)),
        burst: 2,
        sessions: Some(1),
    };
    let clients = Clients::new(limits, RandomState::new());
    let admit = |ms| clients.admit(ip("192.0.2.1"), NOW + Duration::from_millis(ms));
    let first = admit(0).expect("the first");
    for _ in 0..10 {
        assert_eq!(admit(0).err(), Some(Exceeded::Connections));
    }
    drop(first);
    let second = admit(0).expect("the burst was not used up by refused ones");
    drop(second);
    for _ in 0..10 {
        assert_eq!(admit(0).err(), Some(Exceeded::Rate));
    }
    // Places of those that came too fast were given back.
    assert!(admit(100).is_ok());
}

/// Prints what a question costs; asserts nothing about time. In release mode:
/// `cargo test --release -p ringway-core what_a_question -- --nocapture`.
#[test]
fn what_a_question_to_10_000_networks_costs() {
    const QUESTIONS: u32 = if cfg!(debug_assertions) { 20_000 } else { 5_000_000 };
    let scattered = |n: u32| Ipv4Addr::from_bits(n.wrapping_mul(2_654_435_761));
    let networks = (0..10_000).map(|n| Network::containing(scattered(n).into(), 16 + (n % 17) as u8).expect("fits"));
    let began = Instant::now();
    let access = Access {
        allow: None,
        deny: networks.collect(),
    };
    println!("10,000 networks: {:?} to build", began.elapsed());
    let began = Instant::now();
    let permitted = (0..QUESTIONS).filter(|&n| access.permits(black_box(scattered(n.wrapping_mul(40_503)).into())));
    let permitted = permitted.count();
    println!(
        "{:?} to ask, {permitted} of {QUESTIONS} permitted",
        began.elapsed() / QUESTIONS
    );
    assert!(permitted > 0);
}
