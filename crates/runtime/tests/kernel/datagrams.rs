//! Datagrams on the kernel: what comes with them, trains, empty and long ones, errors, and a dry ring.

use crate::harness::*;
use ringway_runtime::{
    Arrived, DatagramOptions, DatagramSocket, Datagrams, Departure, Errno, Event, Handle, Leases, Prefix,
    bind_datagrams,
};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const OPTIONS: DatagramOptions = DatagramOptions {
    receive_buffer: 1 << 20,
    send_buffer: 0,
    apart: false,
};
/// The longest payload over IPv4 (RFC 768, RFC 791).
const LONGEST: usize = 65_507;

fn peer(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).expect("a free port");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("SO_RCVTIMEO");
    socket
}

fn bound(datagrams: &Datagrams, address: &str, key: u64) -> (DatagramSocket, SocketAddr) {
    let address: SocketAddr = address.parse().expect("an address");
    let (socket, bound) = bind_datagrams(address, &OPTIONS).expect("a free port");
    (datagrams.adopt(socket, address.is_ipv6(), key), bound)
}

async fn datagram(datagrams: &mut Datagrams) -> (u64, Arrived, Leases) {
    match datagrams.next().await {
        (key, Event::Datagram(arrived, leases)) => (key, arrived, leases),
        other => panic!("not a datagram: {other:?}"),
    }
}

fn bytes(leases: &Leases) -> Vec<u8> {
    leases.slices().flatten().copied().collect()
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// From a wildcard bind, an answer comes from the address that was asked.
#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    for (wildcard, ours, theirs) in [
        ("0.0.0.0:0", "127.0.0.5", "127.0.0.1"),
        ("[::]:0", "::1", "::1"),
        ("127.0.0.7:0", "127.0.0.7", "127.0.0.1"),
    ] {
        run_datagrams(16, move |handle: Handle| async move {
            let mut datagrams = handle.datagrams();
            let (socket, address) = bound(&datagrams, wildcard, 7);
            let peer = peer(theirs);
            let ours: IpAddr = ours.parse().expect("an address");
            let target = SocketAddr::new(ours, address.port());
            peer.send_to(b"question", target).expect("send");
            let (key, arrived, leases) = datagram(&mut datagrams).await;
            assert_eq!((key, arrived.from, arrived.to), (7, peer.local_addr().ok(), Some(ours)));
            assert_eq!(
                (bytes(&leases), arrived.segment, arrived.truncated),
                (b"question".to_vec(), None, false)
            );
            let departure = Departure {
                to: arrived.from,
                from: arrived.to,
                ..Departure::default()
            };
            socket.send(leases, &departure);
            one_turn().await;
            assert_eq!(receive(&peer), (b"question".to_vec(), target));
        });
    }
}

/// Trap 4: the kernel ends the receive behind an empty datagram.
#[test]
fn empty_and_longest_datagrams_pass_in_order() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (socket, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let peer = peer("127.0.0.1");
        let long = Random::new(1).bytes(LONGEST);
        let sent: [&[u8]; 5] = [b"", b"one", b"", &long, b""];
        for bytes in sent {
            peer.send_to(bytes, address).expect("send");
        }
        for wanted in sent {
            let (_, arrived, leases) = datagram(&mut datagrams).await;
            assert_same(&bytes(&leases), wanted, "received");
            let departure = Departure {
                to: arrived.from,
                ..Departure::default()
            };
            socket.send(leases, &departure);
        }
        one_turn().await;
        for wanted in sent {
            assert_same(&receive(&peer).0, wanted, "sent");
        }
    });
}

/// A train comes as one and goes on as one; whoever takes single datagrams gets them singly.
#[test]
fn a_train_stays_together() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (first, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let (_second, next) = bound(&datagrams, "127.0.0.1:0", 2);
        let last = peer("127.0.0.1");
        let load = Random::new(2).bytes(8 * 1_200 - 100);
        let start = datagrams
            .connect(address, None, &OPTIONS, 3)
            .expect("a connected socket");
        // What is sent is in a buffer: here one that came in before.
        let feeder = peer("127.0.0.1");
        feeder.send_to(&load, address).expect("send");
        let (key, _, leases) = datagram(&mut datagrams).await;
        assert_eq!(key, 1);
        let train = Departure {
            segment: Some(1_200),
            ..Departure::default()
        };
        start.send(leases, &train);
        let (key, arrived, leases) = datagram(&mut datagrams).await;
        assert_eq!((key, arrived.segment), (1, Some(1_200)));
        assert_same(&bytes(&leases), &load, "the train");
        first.send(
            leases,
            &Departure {
                to: Some(next),
                ..train
            },
        );
        let (key, arrived, leases) = datagram(&mut datagrams).await;
        assert_eq!((key, arrived.segment), (2, Some(1_200)));
        let to = last.local_addr().ok();
        first.send(leases, &Departure { to, ..train });
        one_turn().await;
        for piece in load.chunks(1_200) {
            assert_same(&receive(&last).0, piece, "a single datagram");
        }
    });
}

/// The way is narrower than the train's datagrams: it comes back, and leaves as single datagrams, each cut by IP.
#[test]
fn a_train_that_does_not_fit_the_way_leaves_apart() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (_front, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let load = Random::new(3).bytes(LONGEST);
        let last = peer("::1");
        let to = last.local_addr().expect("bound");
        let start = datagrams.connect(to, None, &OPTIONS, 3).expect("a connected socket");
        let feeder = peer("127.0.0.1");
        feeder.send_to(&load, address).expect("send");
        let (_, _, leases) = datagram(&mut datagrams).await;
        // With the headers of IPv6 (48) this is more than the MTU of loopback, 65,536.
        let train = Departure {
            segment: Some(65_500),
            ..Departure::default()
        };
        start.send(leases, &train);
        let (key, event) = datagrams.next().await;
        let Event::TrainRefused(departure, leases) = event else {
            panic!("{event:?}");
        };
        assert_eq!((key, departure), (3, train));
        let apart = Departure {
            segment: Some(40_000),
            apart: true,
            ..train
        };
        start.send(leases, &apart);
        one_turn().await;
        for piece in load.chunks(40_000) {
            assert_same(&receive(&last).0, piece, "a single datagram");
        }
    });
}

/// Bytes of our own go in front: of one datagram, of an empty one, of the first of a train or of each.
#[test]
fn bytes_of_our_own_go_in_front() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (front, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let last = peer("127.0.0.1");
        let to = last.local_addr().expect("bound");
        let start = datagrams.connect(to, None, &OPTIONS, 3).expect("a connected socket");
        let feeder = peer("127.0.0.1");
        let load = Random::new(5).bytes(2_500);
        let first = Prefix {
            bytes: b"in front",
            each: false,
        };
        let each = Prefix { each: true, ..first };
        let apart = Departure {
            segment: Some(1_000),
            apart: true,
            ..Departure::default()
        };
        let odd = Departure {
            first: Some(300),
            ..apart
        };
        for (len, prefix, departure, lengths) in [
            (2_500, first, Departure::default(), &[8 + 2_500][..]),
            (0, first, Departure::default(), &[8]),
            (2_500, first, apart, &[8 + 1_000, 1_000, 500]),
            (2_500, each, apart, &[8 + 1_000, 8 + 1_000, 8 + 500]),
            (2_500, first, odd, &[8 + 300, 1_000, 1_000, 200]),
        ] {
            feeder.send_to(&load[..len], address).expect("send");
            let (_, _, leases) = datagram(&mut datagrams).await;
            start.send_behind(Some(prefix), leases, &departure);
            one_turn().await;
            let mut got = Vec::new();
            for (n, &wanted) in lengths.iter().enumerate() {
                let piece = receive(&last).0;
                assert_eq!(piece.len(), wanted, "datagram {n} of {len} bytes");
                let rest = match (n, prefix.each) {
                    (0, _) | (_, true) => piece.strip_prefix(b"in front").expect("it is in front"),
                    _ => &piece,
                };
                got.extend_from_slice(rest);
            }
            assert_same(&got, &load[..len], "what was behind");
        }
        // With an address and control data as well.
        feeder.send_to(b"behind", address).expect("send");
        let (_, arrived, leases) = datagram(&mut datagrams).await;
        let departure = Departure {
            to: Some(to),
            from: arrived.to,
            ..Departure::default()
        };
        front.send_behind(Some(first), leases, &departure);
        one_turn().await;
        assert_eq!(receive(&last), (b"in frontbehind".to_vec(), address));
    });
}

/// More bytes in front than may wait for one submission.
#[test]
fn many_prefixes_of_one_turn_all_arrive() {
    run_datagrams(256, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (_front, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let last = peer("127.0.0.1");
        let to = last.local_addr().expect("bound");
        let start = datagrams.connect(to, None, &OPTIONS, 3).expect("a connected socket");
        let feeder = peer("127.0.0.1");
        // 70 KiB in front; the receiver has room for as many (net.core.rmem_default).
        let count = 70_u8;
        let mut arrived = Vec::new();
        for n in 0..count {
            feeder.send_to(&[n], address).expect("send");
            arrived.push(datagram(&mut datagrams).await.2);
        }
        for (n, leases) in (0..count).zip(arrived) {
            let prefix = Prefix {
                bytes: &[n; 1_024],
                each: false,
            };
            start.send_behind(Some(prefix), leases, &Departure::default());
        }
        one_turn().await;
        for n in 0..count {
            assert_same(&receive(&last).0, &[n; 1_025], "a datagram");
        }
    });
}

/// A socket that takes no trains gets the datagrams of one singly.
#[test]
fn who_takes_no_trains_gets_none() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (_feeding, feeding) = bound(&datagrams, "127.0.0.1:0", 1);
        let options = DatagramOptions { apart: true, ..OPTIONS };
        let any = "127.0.0.1:0".parse().expect("an address");
        let (socket, address) = bind_datagrams(any, &options).expect("a free port");
        let _apart = datagrams.adopt(socket, false, 2);
        let load = Random::new(6).bytes(2_500);
        let start = datagrams
            .connect(address, None, &OPTIONS, 3)
            .expect("a connected socket");
        peer("127.0.0.1").send_to(&load, feeding).expect("send");
        let (_, _, leases) = datagram(&mut datagrams).await;
        let train = Departure {
            segment: Some(1_000),
            ..Departure::default()
        };
        start.send(leases, &train);
        for piece in load.chunks(1_000) {
            let (key, arrived, leases) = datagram(&mut datagrams).await;
            assert_eq!((key, arrived.segment), (2, None));
            assert_same(&bytes(&leases), piece, "a single datagram");
        }
    });
}

#[test]
fn the_traffic_class_is_seen_and_set() {
    for ip in ["127.0.0.1", "::1"] {
        run_datagrams(16, move |handle: Handle| async move {
            let mut datagrams = handle.datagrams();
            let ip: IpAddr = ip.parse().expect("an address");
            let address = SocketAddr::new(ip, 0).to_string();
            let (_socket, address) = bound(&datagrams, &address, 1);
            let feeder = UdpSocket::bind((ip, 0)).expect("a free port");
            feeder.send_to(b"plain", address).expect("send");
            let (_, arrived, leases) = datagram(&mut datagrams).await;
            assert_eq!(arrived.class, 0);
            let sender = datagrams
                .connect(address, None, &OPTIONS, 2)
                .expect("a connected socket");
            // Expedited forwarding (RFC 3246), and not ECN.
            let class = Some(0xb8);
            sender.send(
                leases,
                &Departure {
                    class,
                    ..Departure::default()
                },
            );
            let (key, arrived, _) = datagram(&mut datagrams).await;
            assert_eq!((key, arrived.class), (1, 0xb8));
        });
    }
}

/// A connected socket hears that nobody listens, and goes on.
#[test]
fn an_icmp_error_is_told_and_the_socket_goes_on() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let server = peer("127.0.0.1");
        let target = server.local_addr().expect("bound");
        drop(server);
        let (_socket, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let client = datagrams
            .connect(target, None, &OPTIONS, 2)
            .expect("a connected socket");
        let feeder = peer("127.0.0.1");
        for round in 0..3 {
            feeder.send_to(b"x", address).expect("send");
            let (_, _, leases) = datagram(&mut datagrams).await;
            client.send(leases, &Departure::default());
            match datagrams.next().await {
                (2, Event::Failed(errno)) => assert!(errno.is_refused(), "{errno}"),
                other => panic!("round {round}: {other:?}"),
            }
        }
        let server = UdpSocket::bind(target).expect("it was free");
        server
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("SO_RCVTIMEO");
        feeder.send_to(b"at last", address).expect("send");
        let (_, _, leases) = datagram(&mut datagrams).await;
        client.send(leases, &Departure::default());
        one_turn().await;
        let (question, from) = receive(&server);
        assert_eq!(question, b"at last");
        server.send_to(b"answer", from).expect("send");
        let (key, _, leases) = datagram(&mut datagrams).await;
        assert_eq!((key, bytes(&leases)), (2, b"answer".to_vec()));
    });
}

/// More datagrams than buffers, held for a while: none is lost that the socket's own buffer can keep.
#[test]
fn a_dry_ring_loses_nothing() {
    const COUNT: u32 = 200;
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let sockets: Vec<_> = (0..4).map(|key| bound(&datagrams, "127.0.0.1:0", key)).collect();
        let feeder = peer("127.0.0.1");
        for n in 0..COUNT {
            let (_, address) = &sockets[n as usize % 4];
            feeder.send_to(&n.to_be_bytes(), address).expect("send");
        }
        let mut held = Vec::new();
        let mut seen = [0_u32; 4];
        for _ in 0..COUNT {
            if held.len() == 16 {
                until(|| handle.stats().readers_starved > 0).await;
                held.clear();
            }
            let (key, _, leases) = datagram(&mut datagrams).await;
            let n = u32::from_be_bytes(bytes(&leases).try_into().expect("four bytes"));
            assert_eq!(n, seen[key as usize] * 4 + key as u32, "out of order or lost");
            seen[key as usize] += 1;
            held.push(leases);
        }
        assert!(handle.stats().buffers_dry > 0, "the ring never ran dry");
    });
}

/// A send that cannot be done is told, with its socket's key; nothing is left behind.
#[test]
fn a_send_that_fails_is_told() {
    run_datagrams(16, |handle: Handle| async move {
        let mut datagrams = handle.datagrams();
        let (socket, address) = bound(&datagrams, "127.0.0.1:0", 5);
        let feeder = peer("127.0.0.1");
        feeder.send_to(&[0; 100], address).expect("send");
        let (_, _, leases) = datagram(&mut datagrams).await;
        // Nobody has port 0 (udp(7): EINVAL).
        let departure = Departure {
            to: Some(([127, 0, 0, 1], 0).into()),
            ..Departure::default()
        };
        socket.send(leases, &departure);
        match datagrams.next().await {
            (5, Event::SendFailed(Errno(_))) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(handle.stats().buffers_out, 0);
    });
}

/// What arrives for a socket that is gone, or a queue that is gone, is given back.
#[test]
fn sockets_and_queues_may_go_in_any_order() {
    run_datagrams(16, |handle: Handle| async move {
        let datagrams = handle.datagrams();
        let (socket, address) = bound(&datagrams, "127.0.0.1:0", 1);
        let (other, other_address) = bound(&datagrams, "127.0.0.1:0", 2);
        let feeder = peer("127.0.0.1");
        for _ in 0..5 {
            feeder.send_to(b"x", address).expect("send");
            feeder.send_to(b"x", other_address).expect("send");
        }
        two_turns().await;
        drop(socket);
        drop(datagrams);
        assert_eq!(handle.stats().buffers_out, 0);
        feeder.send_to(b"x", other_address).expect("send");
        two_turns().await;
        assert_eq!(handle.stats().buffers_out, 0);
        drop(other);
    });
}
