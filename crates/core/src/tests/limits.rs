use crate::limits::{self, Demand, Granted, LimitError, Of, ProcessLimits, Reserve};
use crate::model::{self, Backend, Listener, Model, Pool, PoolIndex, Protocol, Source};
use proptest::prelude::*;

const fn connections(max: Option<u32>) -> Demand {
    Demand {
        of: Of::Connections,
        max,
    }
}

const fn sessions(max: Option<u32>, ports: u32) -> Demand {
    Demand {
        of: Of::Sessions { ports, is_shared: true },
        max,
    }
}

/// 15 for the process, 17 for the admin port, 24 and one per address for each worker (8, and 2 for each of 8 pipes).
#[test]
fn the_reserve_by_hand() {
    let reserve = |workers, bind_addresses, admin| {
        Reserve {
            workers,
            bind_addresses,
            admin,
            ..Reserve::default()
        }
        .descriptors()
    };
    assert_eq!(reserve(1, 1, false), 15 + 25);
    assert_eq!(reserve(1, 1, true), 15 + 17 + 25);
    assert_eq!(reserve(2, 1, true), 15 + 17 + 2 * 25);
    assert_eq!(reserve(16, 5, true), 15 + 17 + 16 * 29);
}

#[test]
fn two_workers_under_a_limit_of_200_still_serve() {
    let reserve = Reserve {
        workers: 2,
        bind_addresses: 1,
        admin: true,
        ..Reserve::default()
    };
    // (200 - 82) / 2
    assert_eq!(reserve.connections_fit(200), 59);
    assert_eq!(
        reserve.check([connections(None)], 200),
        Ok(ProcessLimits {
            connections_max: 59,
            connections_fit: 59,
            for_clients: 118,
            reserve: 82,
            descriptors: 200
        })
    );
    assert!(
        Reserve {
            workers: 2,
            bind_addresses: 8,
            admin: true,
            ..Reserve::default()
        }
        .connections_fit(200)
            >= 50
    );
}

#[test]
fn the_sum_of_the_listeners_is_the_process_limit_unless_one_has_none() {
    let reserve = Reserve {
        workers: 2,
        bind_addresses: 2,
        admin: false,
        ..Reserve::default()
    };
    let max = |listeners: &[Option<u32>]| {
        reserve
            .check(listeners.iter().copied().map(connections), 1_000)
            .map(|l| l.connections_max)
    };
    // (1000 - 15 - 52) / 2 = 466
    assert_eq!(max(&[Some(100), Some(50)]), Ok(150));
    assert_eq!(max(&[Some(100), None]), Ok(466));
    assert_eq!(max(&[Some(400), Some(66)]), Ok(466));
    assert!(max(&[Some(400), Some(67)]).is_err());
    assert!(max(&[Some(400), Some(67), None]).is_err());
    assert_eq!(max(&[]), Ok(466));
}

#[test]
fn what_does_not_fit_is_refused_with_the_arithmetic() {
    // 15 + 17 + 2 * (24 + 35) = 150
    let reserve = Reserve {
        workers: 2,
        bind_addresses: 35,
        admin: true,
        ..Reserve::default()
    };
    let several = reserve
        .check([Some(20_000), Some(30_000), None].map(connections), 20_000)
        .expect_err("it cannot fit");
    assert_eq!(
        several.to_string(),
        "max_connections of listeners add up to 50000; 2 descriptors each + 150 for ourselves = 100150, but the \
         descriptor limit is 20000: raise it (LimitNOFILE=, ulimit -n) or lower max_connections to 9925 in all"
    );
    let one = reserve
        .check([connections(Some(9_926))], 20_000)
        .expect_err("one too many");
    assert_eq!(
        one.to_string(),
        "max_connections is 9926; 2 descriptors each + 150 for ourselves = 20002, but the descriptor limit is 20000: \
         raise it (LimitNOFILE=, ulimit -n) or lower max_connections to 9925"
    );
    assert!(reserve.check([connections(Some(9_925))], 20_000).is_ok());
}

#[test]
fn a_limit_without_room_for_one_connection_is_refused() {
    let reserve = Reserve {
        workers: 2,
        bind_addresses: 1,
        admin: true,
        ..Reserve::default()
    };
    assert_eq!(
        reserve.check([connections(None)], 83),
        Err(LimitError::NoneFits { reserve: 82, limit: 83 })
    );
    assert_eq!(
        reserve
            .check([connections(None)], 10)
            .expect_err("it cannot fit")
            .to_string(),
        "the descriptor limit is 10, but 82 descriptors for ourselves and 2 for each connection are needed: raise it \
         to 84 or more (LimitNOFILE=, ulimit -n)"
    );
    assert_eq!(
        reserve
            .check([connections(None)], 84)
            .map(|limits| limits.connections_max),
        Ok(1)
    );
}

#[test]
fn an_unlimited_process_has_room_for_every_count() {
    let reserve = Reserve {
        workers: 1024,
        bind_addresses: u32::MAX,
        admin: true,
        ..Reserve::default()
    };
    assert_eq!(reserve.connections_fit(u64::MAX), u32::MAX);
    let all = reserve.check([connections(Some(u32::MAX))], u64::MAX).expect("it fits");
    assert_eq!(all.connections_max, u32::MAX);
}

#[test]
fn the_line_for_the_log() {
    let limits = Reserve {
        workers: 2,
        bind_addresses: 1,
        admin: true,
        ..Reserve::default()
    }
    .check([connections(Some(50))], 200)
    .expect("it fits");
    assert_eq!(
        limits.to_string(),
        "at most 50 connections: the descriptor limit is 200, 82 are kept for ourselves, each connection takes 2, so \
         59 would fit"
    );
}

proptest! {
    #[test]
    fn what_is_accepted_fits(
        workers in 1..=1024_u32,
        bind_addresses in 1..50_u32,
        listeners in prop::collection::vec(prop::option::of(1..100_000_u32), 1..6),
        limit in 0..1_100_000_u64,
    ) {
        let reserve = Reserve { workers, bind_addresses, admin: true, ..Reserve::default() };
        let own: u64 = listeners.iter().flatten().map(|&max| u64::from(max)).sum();
        match reserve.check(listeners.iter().copied().map(connections), limit) {
            Ok(limits) => {
                prop_assert!(u64::from(limits.connections_max) * 2 + limits.reserve <= limit);
                prop_assert!(u64::from(limits.connections_max) >= own && limits.connections_max > 0);
            }
            Err(LimitError::NoneFits { reserve, limit }) => prop_assert!(reserve + 2 > limit),
            Err(LimitError::FewerThanWorkers { .. } | LimitError::TooFewPorts { .. }) => {
                prop_assert!(false, "there are no sessions");
            }
            Err(LimitError::TooMany { wanted, reserve, limit, .. }) => prop_assert!(wanted.descriptors() + reserve > limit),
        }
    }
}

/// 1000 - 15 - 2 * 26 = 933 descriptors for clients: 466 connections, or one more session than that twice.
#[test]
fn sessions_take_one_descriptor_and_a_port() {
    let reserve = Reserve {
        workers: 2,
        bind_addresses: 2,
        admin: false,
        ..Reserve::default()
    };
    let check = |demands: &[Demand]| reserve.check(demands.iter().copied(), 1_000);
    let both = check(&[connections(Some(400)), sessions(Some(133), 28_232)]).expect("it fits");
    assert_eq!((both.for_clients, both.connections_max), (933, 466));
    for (demands, expected) in [
        (
            &[connections(Some(400)), sessions(Some(134), 28_232)][..],
            "max_connections add up to 400, 2 descriptors each, max_sessions to 134, 1 each; + 67 for ourselves = 1001, \
             but the descriptor limit is 1000: raise it (LimitNOFILE=, ulimit -n) or lower them",
        ),
        (
            &[sessions(Some(934), 28_232)],
            "max_sessions is 934; 1 descriptor each + 67 for ourselves = 1001, but the descriptor limit is 1000: raise \
             it (LimitNOFILE=, ulimit -n) or lower max_sessions to 933",
        ),
        (
            &[sessions(Some(1), 28_232)],
            "max_sessions is 1, but 2 workers share them: write 2 or more, or workers: 1",
        ),
        (
            &[sessions(Some(600), 500)],
            "max_sessions is 600, but each session takes a local port, and there are 500 for them: widen \
             net.ipv4.ip_local_port_range, add addresses to the pool's source, or lower max_sessions to 500",
        ),
        (
            &[sessions(Some(300), 500), sessions(Some(201), 500)],
            "max_sessions of listeners add up to 501, but each session takes a local port, and there are 500 for them: \
             widen net.ipv4.ip_local_port_range, add addresses to the pool's source, or lower max_sessions to 500",
        ),
    ] {
        assert_eq!(check(demands).expect_err("it does not fit").to_string(), expected);
    }
}

#[test]
fn sessions_leave_ports_to_others() {
    let ports = |ports| {
        let granted = Granted { descriptors: 0, ports };
        granted.ports_for_sessions()
    };
    // The usual range, one port, and none.
    assert_eq!(
        [ports(28_232), ports(2_048), ports(100), ports(1), ports(0)],
        [27_208, 1_024, 50, 1, 0]
    );
}

/// 28,232 ports, of which 1,024 are left to others: 27,208 for each address that sessions come from.
#[test]
fn ports_are_counted_for_each_address_that_sessions_come_from() {
    let own = |last| std::net::IpAddr::from([10, 0, 0, last]);
    let granted = Granted {
        descriptors: 1_000_000,
        ports: 28_232,
    };
    for (source, sessions_max, shares_ports) in [
        (Source::Kernel, 27_208, true),
        (Source::Addresses(vec![own(1), own(2)]), 54_416, false),
        // As many as there are clients: descriptors are what is left.
        (Source::Client, 900_000, false),
    ] {
        let checked = |max| {
            let address = model::Address::Inet(([10, 0, 1, 1], 53).into());
            let mut listener = Listener::new("dns", address.clone(), PoolIndex(0));
            (listener.protocol, listener.max_connections) = (Protocol::Udp, Some(max));
            let mut pool = Pool::new(
                "dns",
                vec![Backend::new(model::Target::Address(address), "10.0.1.1:53")],
            );
            pool.source = source.clone();
            let model = Model::new(vec![listener], vec![pool]);
            let limits = limits::check(&model, 1, granted)?;
            Ok::<_, LimitError>(limits::caps(&model, &limits, granted)[0])
        };
        let cap = checked(sessions_max).expect("it fits");
        assert_eq!((cap.max, cap.shares_ports), (sessions_max, shares_ports), "{source:?}");
        if source != Source::Client {
            let error = checked(sessions_max + 1).expect_err("no port is left");
            assert!(matches!(error, LimitError::TooFewPorts { .. }), "{source:?}: {error}");
        }
    }
}
