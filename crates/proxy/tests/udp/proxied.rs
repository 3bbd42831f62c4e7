//! PROXY headers in front of datagrams, one after the other in a calm network.

use crate::world::{CLIENTS, Per, Shape, World, front, header, local_header, named, told};
use ringway_core::access::{Access, Network};
use ringway_core::model::{Balance, Listener, OnBackendDown, Pool};
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::{ClientLimits, Rules};
use ringway_runtime::sim::{DatagramPeer, Letter};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const LONGEST: usize = 65_507;

fn shape(accepted: Per, sent: Per) -> Shape {
    Shape {
        accepted,
        sent,
        sessions: 20,
        ..Shape::CALM
    }
}

/// Sessions live until a test is over, whatever the seed has.
fn long_lived(seed: u64, shape: Shape, change: impl FnOnce(&mut Listener, &mut Pool)) -> World {
    World::with(seed, shape, |listener, pool| {
        listener.udp.rules = Rules {
            timeout: Duration::from_secs(60),
            unanswered_timeout: Duration::from_secs(60),
            requests: None,
            responses: None,
        };
        pool.sessions.on_backend_down = OnBackendDown::Move;
        change(listener, pool);
    })
}

fn calm(seed: u64, shape: Shape) -> World {
    long_lived(seed, shape, |_, _| {})
}

impl World {
    fn settle(&self) {
        for _ in 0..6 {
            self.runtime.turn(false);
            self.network.advance(Duration::from_micros(10));
        }
    }

    fn client_says(&self, client: usize, bytes: &[u8], segment: Option<u16>) {
        self.network
            .send_letter(self.clients[client], front(), bytes, segment, 0);
    }

    /// What backends get, each with who it is.
    fn at_backends(&self) -> Vec<(DatagramPeer, Letter)> {
        self.settle();
        let letters = |&peer| std::iter::from_fn(move || Some((peer, self.network.receive_letter(peer)?)));
        self.backends.iter().flatten().flat_map(letters).collect()
    }

    fn bytes_at_backends(&self) -> Vec<Vec<u8>> {
        self.at_backends().into_iter().map(|(_, letter)| letter.bytes).collect()
    }

    /// The sessions of a backend are told to leave it.
    fn orders_away(&self, backend: DatagramPeer, reason: EndReason) {
        let n = self.backends.iter().position(|&peer| peer == Some(backend));
        let now = self.clock_offset + Duration::from_nanos(self.runtime.handle().now().as_nanos());
        let orders = &self.snapshot.pools[0].view().backends[n.expect("one of them")].orders;
        orders.close_before(now.as_nanos() as u64, reason.index());
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.stats.listeners[0].dropped[reason.index()].value()
    }

    fn sessions(&self) -> i64 {
        i64::try_from(self.stats.listeners[0].connections.value()).expect("few")
    }

    fn address_of(client: usize) -> SocketAddr {
        crate::world::address(10 + client as u8, 4_000)
    }
}

#[test]
fn the_first_datagram_for_a_backend_has_a_header() {
    let world = calm(1, shape(Per::Nothing, Per::Session));
    let told = header(World::address_of(0), front());
    world.client_says(0, b"one", None);
    let (backend, letter) = world.at_backends().pop().expect("it was passed on");
    assert_eq!(letter.bytes, [&told[..], b"one"].concat());
    world.client_says(0, b"two", None);
    world.client_says(0, b"", None);
    assert_eq!(world.bytes_at_backends(), [b"two".to_vec(), Vec::new()]);
    // It is told to leave: the next backend knows nothing yet.
    world.orders_away(backend, EndReason::BackendRemoved);
    world.client_says(0, b"three", None);
    let moved = world.at_backends();
    assert_ne!(moved[0].0, backend);
    assert_eq!((world.sessions(), world.stats.listeners[0].moved.value()), (1, 1));
    assert_eq!(moved[0].1.bytes, [&told[..], b"three"].concat());
    world.client_says(0, b"four", None);
    assert_eq!(world.bytes_at_backends(), [b"four"]);
}

/// A train cannot go on as one: the first datagram of it, or each, has become longer.
#[test]
fn a_train_leaves_apart_behind_headers() {
    let train: Vec<u8> = (0..25).collect();
    let told = header(World::address_of(0), front());
    for (sent, headers) in [(Per::Session, [true, false, false]), (Per::Datagram, [true; 3])] {
        let world = calm(2, shape(Per::Nothing, sent));
        world.client_says(0, &train, Some(10));
        let expected: Vec<Vec<u8>> = std::iter::zip(train.chunks(10), headers)
            .map(|(piece, has_one)| {
                if has_one {
                    [&told[..], piece].concat()
                } else {
                    piece.to_vec()
                }
            })
            .collect();
        assert_eq!(world.bytes_at_backends(), expected, "{sent:?}");
        world.client_says(0, &train, Some(10));
        let again = world.at_backends();
        match sent {
            Per::Session => assert_eq!((&again[0].1.bytes, again[0].1.segment), (&train, Some(10))),
            _ => assert_eq!(again.len(), 3, "{sent:?}"),
        }
        assert_eq!(world.stats.listeners[0].datagrams_from_clients.value(), 6);
        assert_eq!(
            world.stats.listeners[0].bytes_from_clients.value(),
            50,
            "of the client's"
        );
    }
}

#[test]
fn what_is_too_long_behind_its_header_is_dropped() {
    for sent in [Per::Session, Per::Datagram] {
        let world = calm(3, shape(Per::Nothing, sent));
        world.client_says(0, &vec![1; LONGEST - 28 + 1], None);
        assert!(world.at_backends().is_empty());
        assert_eq!((world.dropped(DropReason::TooLong), world.sessions()), (1, 1));
        // The header is still owed.
        world.client_says(0, &vec![2; LONGEST - 28], None);
        let passed = world.bytes_at_backends();
        assert_eq!(passed.len(), 1);
        assert!(passed[0].len() == LONGEST && passed[0].starts_with(&header(World::address_of(0), front())));
        world.client_says(0, &vec![3; LONGEST], None);
        let passes = sent == Per::Session;
        assert_eq!(world.bytes_at_backends().len(), usize::from(passes), "{sent:?}");
        assert_eq!(world.dropped(DropReason::TooLong), if passes { 1 } else { 2 });
    }
}

/// What comes right behind the header, before the session is open, belongs to it; headers of clients' own do not.
#[test]
fn one_header_is_enough_for_a_session() {
    let world = calm(4, shape(Per::Session, Per::Session));
    let told = header(named(1), told());
    world.client_says(0, &[&told[..], b"one"].concat(), None);
    world.client_says(0, b"two", None);
    // A train behind it.
    world.client_says(0, b"threefour", Some(5));
    let forged = [&header(named(2), crate::world::told())[..], b"forged"].concat();
    world.client_says(0, &forged, None);
    world.client_says(
        0,
        &[&vec![0; forged.len()], &forged[..]].concat(),
        Some(forged.len() as u16),
    );
    let got = world.bytes_at_backends();
    assert_eq!(got, [&[&told[..], b"one"].concat()[..], b"two", b"threefour"]);
    assert_eq!(world.dropped(DropReason::BadProxyHeader), 3);
    world.client_says(0, &forged, None);
    world.client_says(0, b"five", None);
    assert_eq!(world.bytes_at_backends(), [b"five"]);
    assert_eq!((world.dropped(DropReason::BadProxyHeader), world.sessions()), (4, 1));
}

/// Its first datagram has the header, and is shorter than the others without it.
#[test]
fn a_train_may_begin_with_a_header() {
    for sent in [Per::Nothing, Per::Session, Per::Datagram] {
        let world = calm(5, shape(Per::Session, sent));
        let told = header(named(1), told());
        let train = [&told[..], b"first", &[7; 33], &[8; 20]].concat();
        world.client_says(0, &train, Some(33));
        let before = |has_one: bool| if has_one { told.clone() } else { Vec::new() };
        let (one, each) = (before(sent != Per::Nothing), before(sent == Per::Datagram));
        let expected = [
            [&one[..], b"first"].concat(),
            [&each[..], &[7; 33]].concat(),
            [&each[..], &[8; 20]].concat(),
        ];
        assert_eq!(world.bytes_at_backends(), expected, "{sent:?}");
        assert_eq!(world.stats.listeners[0].datagrams_from_clients.value(), 3);
        // Nothing but a header: an empty datagram.
        world.client_says(1, &told, None);
        assert_eq!(world.bytes_at_backends(), [one], "{sent:?}");
    }
}

#[test]
fn headers_are_taken_from_trusted_senders_only_and_only_whole() {
    for accepted in [Per::Session, Per::Datagram] {
        let world = calm(6, shape(accepted, Per::Nothing));
        let good = [&header(named(1), told())[..], b"hello"].concat();
        world.client_says(CLIENTS - 1, &good, None);
        assert!(world.at_backends().is_empty());
        assert_eq!(world.dropped(DropReason::UntrustedProxy), 1);
        let mut bad = vec![b"hello".to_vec(), Vec::new(), good[..27].to_vec()];
        // Version 1; a command that is none; a length beyond the datagram.
        bad.push(b"PROXY UNKNOWN\r\nhello".to_vec());
        bad.extend([(12, 0x22), (15, 200)].map(|(at, byte)| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        }));
        for bytes in &bad {
            world.client_says(0, bytes, None);
        }
        assert!(world.at_backends().is_empty());
        assert_eq!(
            world.dropped(DropReason::BadProxyHeader),
            bad.len() as u64,
            "{accepted:?}"
        );
        assert_eq!(world.sessions(), 0);
        world.client_says(0, &good, None);
        assert_eq!(world.bytes_at_backends(), [b"hello"]);
    }
}

/// One port of a balancer, many clients: each has a session, and gets no other's answers mixed in.
#[test]
fn clients_that_share_a_port_have_sessions_of_their_own() {
    let world = calm(7, shape(Per::Datagram, Per::Datagram));
    let say = |header: &[u8], payload: &[u8]| world.client_says(0, &[header, payload].concat(), None);
    let (first, second) = (header(named(1), told()), header(named(2), told()));
    let itself = header(World::address_of(0), front());
    let mut ports = Vec::new();
    for (said, told, payload) in [
        (&first, &first, b"a"),
        (&second, &second, b"b"),
        (&local_header(), &itself, b"c"),
        (&first, &first, b"d"),
        (&second, &second, b"e"),
    ] {
        say(said, payload);
        let (backend, letter) = world.at_backends().pop().expect("it was passed on");
        assert_eq!(letter.bytes, [&told[..], payload].concat());
        ports.push(letter.from);
        // The answer goes to the balancer, without a header.
        world.network.send_letter(backend, letter.from, b"answer", None, 0);
        world.settle();
        let answer = world.network.receive_letter(world.clients[0]).expect("an answer");
        assert_eq!((answer.from, &answer.bytes[..]), (front(), &b"answer"[..]));
    }
    assert_eq!((ports[3], ports[4]), (ports[0], ports[1]));
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 3);
    // Of another sender the same client is another session.
    world.client_says(1, &[&first[..], b"f"].concat(), None);
    let letter = world.at_backends().pop().expect("it was passed on").1;
    assert!(!ports.contains(&letter.from));
    say(b"", b"no header");
    assert!(world.at_backends().is_empty());
    assert_eq!((world.dropped(DropReason::BadProxyHeader), world.sessions()), (1, 4));
    // A train of two clients' datagrams: this socket is given them singly.
    let both = [&first[..], b"g", &second, b"h"].concat();
    world.client_says(0, &both, Some(29));
    let got: Vec<_> = world
        .at_backends()
        .into_iter()
        .map(|(_, letter)| (letter.from, letter.bytes[28]))
        .collect();
    assert_eq!(
        BTreeSet::from_iter(got),
        BTreeSet::from([(ports[0], b'g'), (ports[1], b'h')])
    );
}

/// The named client counts for access, limits and choosing, not the balancer.
#[test]
fn the_named_client_counts() {
    for accepted in [Per::Session, Per::Datagram] {
        let world = long_lived(8, shape(accepted, Per::Nothing), |listener, pool| {
            let network = |address: SocketAddr| Network::of_one(address.ip());
            listener.access = Access {
                allow: None,
                deny: [network(named(9))].into_iter().collect(),
            };
            listener.clients = ClientLimits {
                sessions: Some(2),
                interval: None,
                burst: 1,
            };
            pool.balance = Balance::IpHash;
        });
        let say = |client: usize, n: u8| {
            world.client_says(client, &[&header(named(n), told())[..], b"x"].concat(), None);
            world.at_backends().pop().map(|(backend, _)| backend)
        };
        assert!(say(0, 9).is_none());
        assert_eq!(world.dropped(DropReason::Denied), 1);
        let home = say(0, 1).expect("it is passed on");
        assert_eq!(say(1, 1), Some(home), "one client, two balancers");
        assert!(say(2, 1).is_none(), "its third session");
        assert_eq!(world.dropped(DropReason::ClientSessions), 1);
        if accepted == Per::Datagram {
            let place = |home| world.backends.iter().position(|&peer| peer == Some(home));
            let homes: BTreeSet<_> = (20..24).map(|n| place(say(3, n).expect("it is passed on"))).collect();
            assert!(homes.len() > 1, "four clients behind one port: {homes:?}");
        }
    }
}

/// A session that has to end before its client's datagram: the next one is the same client's, although nothing says so.
#[test]
fn a_session_that_begins_anew_is_still_its_clients() {
    let world = long_lived(9, shape(Per::Session, Per::Session), |_, pool| {
        pool.sessions.on_backend_down = OnBackendDown::Close;
    });
    let told = header(named(1), told());
    world.client_says(0, &[&told[..], b"one"].concat(), None);
    let (backend, first) = world.at_backends().pop().expect("it was passed on");
    world.orders_away(backend, EndReason::BackendDown);
    world.client_says(0, b"two", None);
    let (_, second) = world.at_backends().pop().expect("it was passed on");
    assert_ne!(second.from, first.from);
    assert_eq!(second.bytes, [&told[..], b"two"].concat());
    let ended = &world.stats.listeners[0].ended[EndReason::BackendDown.index()];
    assert_eq!((ended.value(), world.sessions()), (1, 1));
}
