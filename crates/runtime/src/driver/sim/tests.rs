//! What the simulated kernel promises, with the numbers that the real one gives: each is a fact that was measured, and
//! most were once somebody's bug.

use super::*;
use crate::address::Address;
use crate::driver::{Domain, Fd, Operation, PipeEnds, Wait};
use crate::errno::Errno;
use crate::socket::{Keepalive, ListenOptions, SocketOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};

const EPIPE: i32 = -32;
const EAGAIN: i32 = -11;
const EMFILE: i32 = -24;
const ECONNRESET: i32 = -104;
const ENOBUFS: i32 = -105;
const ETIMEDOUT: i32 = -110;
const ECONNREFUSED: i32 = -111;
const EHOSTUNREACH: i32 = -113;
const ECANCELED: i32 = -125;

const BUFFERS: BufferOptions = BufferOptions { count: 16, size: 1024 };
const OPTIONS: ListenOptions = ListenOptions {
    backlog: 8,
    connection: SocketOptions {
        no_delay: true,
        keepalive: None,
    },
};

fn address() -> Address {
    Address::Inet(([192, 0, 2, 1], 80).into())
}

fn token(n: u32) -> Token {
    Token { slot: n, generation: n }
}

/// One ring, one listener, one client connected to it.
struct Scene {
    network: Network,
    sim: Sim,
    listener: Fd,
    client: PeerId,
    fd: Fd,
}

fn scene(chances: Chances) -> Scene {
    let network = Network::new(1, Chances::CALM);
    let mut sim = network.driver(BUFFERS);
    let (listener, _) = sim.listen(&address(), &OPTIONS).expect("nobody listens there");
    network.set_chances(chances);
    let client = network.connect(&address()).expect("somebody listens");
    network.set_chances(Chances::CALM);
    let fd = sim.accept_queued(listener).expect("a client waits");
    network.set_chances(chances);
    network.hold_clock(true);
    Scene {
        network,
        sim,
        listener,
        client,
        fd,
    }
}

impl Scene {
    /// A turn; token, result and `more` of what completed.
    fn turn(&mut self) -> Vec<(u32, i32, bool)> {
        self.full_turn()
            .into_iter()
            .map(|completion| self.brief(completion))
            .collect()
    }

    fn brief(&self, completion: Completion) -> (u32, i32, bool) {
        self.sim.buffer_ring.release(completion.links);
        (completion.token.slot, completion.result, completion.more)
    }

    fn full_turn(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.sim.turn(Wait::Forever, &mut completions);
        completions
    }

    fn receive(&mut self, n: u32) {
        self.sim.start(
            Operation::Receive {
                fd: self.fd,
                once: None,
            },
            token(n),
        );
    }

    fn send(&mut self, n: u32, bytes: &[u8]) {
        self.sim.start(
            Operation::SendBytes {
                fd: self.fd,
                bytes,
                report: false,
            },
            token(n),
        );
    }

    fn read(&self) -> (Vec<u8>, Read) {
        let mut bytes = Vec::new();
        loop {
            match self.network.receive(self.client, usize::MAX, &mut bytes) {
                Read::Bytes(_) => {}
                other => return (bytes, other),
            }
        }
    }
}

#[test]
fn a_send_that_is_taken_whole_reports_nothing() {
    let mut scene = scene(Chances::CALM);
    scene.send(7, b"whole");
    assert_eq!(scene.turn(), []);
    assert_eq!(scene.read(), (b"whole".to_vec(), Read::Nothing));
}

#[test]
fn a_short_send_reports_its_count_and_a_full_one_eagain() {
    let small = Chances {
        send_buffer: (100, 100),
        receive_buffer: (50, 50),
        ..Chances::CALM
    };
    let mut scene = scene(small);
    scene.send(1, &[1; 120]);
    assert_eq!(
        scene.turn(),
        [(1, 100, false)],
        "the send buffer takes 100, of which 50 arrive"
    );
    scene.send(2, &[2; 60]);
    assert_eq!(scene.turn(), [(2, 50, false)]);
    scene.send(3, &[3; 1]);
    assert_eq!(scene.turn(), [(3, EAGAIN, false)]);
}

#[test]
fn writable_waits_for_a_third_of_the_send_buffer() {
    let small = Chances {
        send_buffer: (90, 90),
        receive_buffer: (20, 20),
        ..Chances::CALM
    };
    let mut scene = scene(small);
    scene.send(1, &[1; 200]);
    scene.turn();
    scene.send(2, &[1; 20]);
    scene.turn();
    let fd = scene.fd;
    scene.sim.start(Operation::Writable { fd }, token(3));
    assert_eq!(scene.turn(), []);
    let mut bytes = Vec::new();
    assert_eq!(scene.network.receive(scene.client, 20, &mut bytes), Read::Bytes(20));
    assert_eq!(scene.turn(), [], "20 bytes of room are too few");
    assert_eq!(scene.network.receive(scene.client, 20, &mut bytes), Read::Bytes(20));
    assert_eq!(scene.turn(), [(3, 4, false)], "POLLOUT");
}

#[test]
fn an_end_has_no_buffer_and_ends_the_receive() {
    let mut scene = scene(Chances::CALM);
    scene.receive(1);
    scene.network.send(scene.client, b"bye").expect("room");
    scene.network.shutdown_write(scene.client).expect("open");
    assert_eq!(scene.turn(), [(1, 3, true), (1, 0, false)]);
    assert_eq!(scene.sim.buffer_ring.lent(), 0);
}

#[test]
fn bytes_come_before_a_reset_which_is_told_once() {
    let mut scene = scene(Chances::CALM);
    scene.network.send(scene.client, b"last words").expect("room");
    assert_eq!(scene.turn(), [], "they have arrived");
    scene.network.reset(scene.client);
    scene.receive(1);
    assert_eq!(scene.turn(), [(1, 10, true), (1, ECONNRESET, false)]);
    scene.send(2, b"x");
    assert_eq!(scene.turn(), [(2, EPIPE, false)]);
    scene.receive(3);
    assert_eq!(scene.turn(), [(3, 0, false)]);
}

/// Whoever asks first learns of the reset; the receive then looks like an orderly end.
#[test]
fn a_send_that_learns_of_a_reset_leaves_an_end_to_the_receive() {
    let mut scene = scene(Chances::CALM);
    scene.receive(1);
    scene.turn();
    scene.network.reset(scene.client);
    scene.network.advance(Duration::ZERO);
    scene.send(2, b"x");
    assert_eq!(scene.turn(), [(2, ECONNRESET, false), (1, 0, false)]);
}

#[test]
fn a_reset_overtakes_what_is_under_way() {
    let mut scene = scene(Chances {
        receive_buffer: (4, 4),
        ..Chances::CALM
    });
    scene.network.send(scene.client, b"arrivedlost").expect("room");
    scene.turn();
    scene.network.reset(scene.client);
    scene.network.advance(Duration::ZERO);
    scene.receive(1);
    assert_eq!(scene.turn(), [(1, 4, true), (1, ECONNRESET, false)]);
}

#[test]
fn a_dry_ring_answers_at_once_even_without_bytes() {
    let mut scene = scene(Chances::CALM);
    scene.network.send(scene.client, &[5; 16 * 1024 + 1]).expect("room");
    scene.receive(1);
    let held = scene.full_turn();
    let results: Vec<_> = held
        .iter()
        .map(|completion| (completion.result, completion.more))
        .collect();
    // A bundle is at most a quarter of the ring.
    let quarter = (4 * 1024, true);
    assert_eq!(results, [quarter, quarter, quarter, quarter, (ENOBUFS, false)]);
    assert_eq!(scene.sim.buffer_ring.lent(), 16);
    scene.receive(2);
    assert_eq!(scene.turn(), [(2, ENOBUFS, false)]);
    for completion in held {
        scene.brief(completion);
    }
    scene.receive(3);
    assert_eq!(scene.turn(), [(3, 1, true)]);
}

/// A bundle names its first buffer only; the others are where the ring says, whatever order they came back in.
#[test]
fn a_bundle_is_resolved_through_the_ring() {
    let mut scene = scene(Chances::CALM);
    scene.receive(1);
    scene.turn();
    for round in 0_u8..50 {
        let text: Vec<u8> = (0..5000_u32).map(|n| (n / 7) as u8 ^ round).collect();
        scene.network.send(scene.client, &text).expect("room");
        let completions = scene.full_turn();
        let mut got = Vec::new();
        let mut kept = Vec::new();
        for completion in completions {
            scene
                .sim
                .buffer_ring
                .slices(&completion.links)
                .for_each(|slice| got.extend_from_slice(slice));
            kept.push(completion.links);
        }
        assert_eq!(got, text);
        kept.reverse();
        kept.into_iter().for_each(|links| scene.sim.buffer_ring.release(links));
    }
    // Each text is a bundle of four buffers and one buffer more.
    assert!(scene.network.seen().bundles >= 50 * 3);
}

#[test]
fn bytes_may_come_between_a_cancel_and_its_last_completion() {
    let mut scene = scene(Chances {
        data_after_cancel: 1000,
        ..Chances::CALM
    });
    scene.receive(1);
    scene.turn();
    scene.network.send(scene.client, b"late").expect("room");
    scene.sim.start(Operation::Cancel { target: token(1) }, token(1));
    assert_eq!(scene.turn(), [(1, 4, true), (1, ECANCELED, false)]);
    scene.sim.start(Operation::Cancel { target: token(1) }, token(1));
    assert_eq!(scene.turn(), [], "a cancel that finds nothing says nothing");
    assert_eq!(scene.network.seen().cancels_that_found_nothing, 1);
}

#[test]
fn a_receive_may_end_with_good_bytes() {
    let mut scene = scene(Chances {
        receive_ended: 1000,
        ..Chances::CALM
    });
    scene.receive(1);
    scene.network.send(scene.client, b"good").expect("room");
    assert_eq!(scene.turn(), [(1, 4, false)]);
}

#[test]
fn a_receive_that_was_asked_for_once_takes_whole_buffers_and_ends() {
    for (max, expected) in [(1, 1024), (1025, 1025), (3000, 3000)] {
        let mut scene = scene(Chances::CALM);
        scene.network.send(scene.client, &[7; 6_000]).expect("room");
        let fd = scene.fd;
        let once = Some(max);
        scene.sim.start(Operation::Receive { fd, once }, token(1));
        assert_eq!(scene.turn(), [(1, expected, false)], "at most {max}");
    }
}

#[test]
fn accepting_without_descriptors_leaves_the_client_in_the_queue() {
    let mut scene = scene(Chances::CALM);
    scene.network.limit_descriptors(2);
    scene.network.connect(&address()).expect("queued");
    let listener = scene.listener;
    scene.sim.start(
        Operation::Accept {
            fd: listener,
            once: false,
        },
        token(1),
    );
    assert_eq!(scene.turn(), [(1, EMFILE, false)]);
    scene.network.limit_descriptors(3);
    scene.sim.start(
        Operation::Accept {
            fd: listener,
            once: true,
        },
        token(2),
    );
    assert_eq!(scene.turn(), [(2, 2, false)], "descriptor 2, and no more of them");
}

#[test]
fn closing_with_unread_bytes_or_on_request_resets_and_otherwise_ends() {
    for (unread, abort, expected) in [
        (false, false, Read::End),
        (true, false, Read::Broken),
        (false, true, Read::Broken),
    ] {
        let mut scene = scene(Chances::CALM);
        if unread {
            scene.network.send(scene.client, b"unread").expect("room");
            scene.turn();
        }
        let fd = scene.fd;
        scene.sim.close(fd, abort);
        scene.network.advance(Duration::ZERO);
        assert_eq!(scene.read(), (Vec::new(), expected), "unread {unread}, abort {abort}");
    }
}

#[test]
fn bytes_for_a_closed_socket_are_answered_with_a_reset() {
    let mut scene = scene(Chances::CALM);
    scene.network.close(scene.client);
    scene.send(1, b"too late");
    assert_eq!(scene.turn(), []);
    scene.turn();
    scene.send(2, b"x");
    assert_eq!(
        scene.turn(),
        [(2, EPIPE, false)],
        "not ECONNRESET: an end came before the reset"
    );
}

#[test]
fn closing_with_an_operation_in_flight_is_reported() {
    let mut scene = scene(Chances::CALM);
    scene.receive(1);
    let fd = scene.fd;
    let panic = catch_unwind(AssertUnwindSafe(|| scene.sim.close(fd, false)));
    assert!(panic.is_err());
    let violation = scene.network.violation().expect("it is remembered");
    assert!(violation.contains("closed with 1 operations in flight"), "{violation}");
}

#[test]
fn a_number_is_used_again_at_once_and_late_use_is_reported() {
    let mut scene = scene(Chances::CALM);
    let fd = scene.fd;
    scene.sim.close(fd, false);
    let mut other = scene.network.driver(BUFFERS);
    assert_eq!(other.open(Domain::Ipv4, None), Ok(fd), "the lowest free number");
    assert!(catch_unwind(AssertUnwindSafe(|| scene.sim.shutdown_write(fd))).is_err());
    let violation = scene.network.violation().expect("it is remembered");
    assert!(violation.contains("belongs to runtime 1"), "{violation}");
}

#[test]
fn connecting_ends_as_the_other_side_decides() {
    let backend = Address::Inet(([198, 51, 100, 1], 5432).into());
    for (welcome, expected) in [
        (Welcome::Accept, Some(0)),
        (Welcome::Late(Duration::from_secs(1)), Some(0)),
        (Welcome::Refuse, Some(ECONNREFUSED)),
        (Welcome::Unreachable, Some(EHOSTUNREACH)),
        (Welcome::Silence, None),
    ] {
        let mut scene = scene(Chances::CALM);
        let listener = scene.network.listen_peer(&backend, move |_| welcome);
        let fd = scene.sim.open(Domain::Ipv4, None).expect("a descriptor");
        scene.sim.start(Operation::Connect { fd, address: &backend }, token(1));
        let mut completions = scene.turn();
        scene.network.advance(Duration::from_secs(2));
        completions.extend(scene.turn());
        match expected {
            Some(result) => assert_eq!(completions, [(1, result, false)], "{welcome:?}"),
            None => {
                assert_eq!(completions, []);
                scene.sim.start(Operation::Cancel { target: token(1) }, token(1));
                assert_eq!(scene.turn(), [(1, ECANCELED, false)]);
            }
        }
        assert_eq!(scene.network.accept_peer(listener).is_some(), expected == Some(0));
        scene.sim.close(fd, false);
    }
}

#[test]
fn a_silent_backend_times_out_in_the_end() {
    let backend = Address::Inet(([198, 51, 100, 1], 5432).into());
    let mut scene = scene(Chances::CALM);
    scene.network.listen_peer(&backend, |_| Welcome::Silence);
    let fd = scene.sim.open(Domain::Ipv4, None).expect("a descriptor");
    scene.sim.start(Operation::Connect { fd, address: &backend }, token(1));
    assert_eq!(scene.turn(), []);
    scene.network.advance(Duration::from_secs(126));
    assert_eq!(scene.turn(), []);
    scene.network.advance(Duration::from_secs(1));
    assert_eq!(scene.turn(), [(1, ETIMEDOUT, false)]);
}

#[test]
fn closing_a_listener_resets_whoever_waits_in_its_queue() {
    let mut scene = scene(Chances::CALM);
    let waiting = scene.network.connect(&address()).expect("queued");
    let listener = scene.listener;
    scene.sim.close(listener, false);
    scene.network.advance(Duration::ZERO);
    assert_eq!(scene.network.receive(waiting, 1, &mut Vec::new()), Read::Broken);
    assert_eq!(scene.network.connect(&address()), Err(Errno(111)));
}

#[test]
fn listeners_of_one_address_share_its_clients() {
    let mut scene = scene(Chances::CALM);
    let mut other = scene.network.driver(BUFFERS);
    let (second, _) = other.listen(&address(), &OPTIONS).expect("SO_REUSEPORT");
    let listener = scene.listener;
    let (mut first_got, mut second_got) = (0, 0);
    for _ in 0..100 {
        scene.network.connect(&address()).expect("queued");
        first_got += usize::from(scene.sim.accept_queued(listener).is_ok());
        second_got += usize::from(other.accept_queued(second).is_ok());
    }
    assert_eq!(first_got + second_got, 100);
    assert!(first_got > 25 && second_got > 25, "{first_got} and {second_got}");
}

#[test]
fn a_peer_that_was_cut_off_is_given_up_by_keepalive() {
    let mut scene = scene(Chances::CALM);
    let keepalive = Keepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 6,
    };
    let fd = scene.fd;
    scene
        .sim
        .set_options(
            fd,
            &SocketOptions {
                no_delay: true,
                keepalive: Some(keepalive),
            },
        )
        .expect("open");
    scene.receive(1);
    scene.network.cut(scene.client);
    scene.network.advance(Duration::from_secs(119));
    assert_eq!(scene.turn(), []);
    scene.network.advance(Duration::from_secs(1));
    assert_eq!(scene.turn(), [(1, ETIMEDOUT, false)]);
}

#[test]
fn a_peer_that_does_not_read_is_heard_of_and_one_that_was_cut_off_is_not() {
    let mut scene = scene(Chances {
        receive_buffer: (10, 10),
        ..Chances::CALM
    });
    scene.send(1, &[0; 100]);
    scene.turn();
    scene.network.advance(Duration::from_secs(300));
    let fd = scene.fd;
    let info = scene.sim.tcp_info(fd).expect("TCP");
    assert_eq!((info.outgoing, info.unanswered), (90, 0));
    assert!(info.last_heard <= Duration::from_secs(20));
    scene.network.cut(scene.client);
    scene.network.advance(Duration::from_secs(300));
    let info = scene.sim.tcp_info(fd).expect("TCP");
    assert_eq!(info.last_heard, Duration::from_secs(600));
    assert!(info.unanswered >= 2 && !info.closed);
}

#[test]
fn completions_of_one_operation_stay_in_order() {
    let mut random = Random::new(3);
    let completion = |slot, result| Completion {
        token: token(slot),
        result,
        more: true,
        links: Links::EMPTY,
        is_datagram: false,
    };
    for _ in 0..200 {
        let mut completions: Vec<_> = (0..9).map(|n| completion(n % 3, n as i32)).collect();
        shuffle(&mut random, &mut completions);
        for slot in 0..3 {
            let of_slot: Vec<_> = completions
                .iter()
                .filter(|it| it.token == token(slot))
                .map(|it| it.result)
                .collect();
            assert_eq!(of_slot, [slot as i32, slot as i32 + 3, slot as i32 + 6]);
        }
    }
}

/// Moves what the client sent on to itself, as far as it goes at once: bytes filled, bytes drained.
fn splice(scene: &mut Scene, pipe: PipeEnds, max: u32) -> (Result<u32, i32>, Result<u32, i32>) {
    let filled = scene.sim.fill_pipe(scene.fd, pipe, max).map_err(|errno| -errno.0);
    let drained = scene.sim.drain_pipe(pipe, scene.fd, max).map_err(|errno| -errno.0);
    (filled, drained)
}

#[test]
fn a_pipe_carries_bytes_in_order_and_the_end_behind_them() {
    let mut scene = scene(Chances::CALM);
    let pipe = scene.sim.open_pipe(65_536).expect("a pipe");
    assert_eq!(splice(&mut scene, pipe, 100).0, Err(EAGAIN), "nothing has come");
    scene.sim.start(Operation::Readable { fd: scene.fd }, token(1));
    assert_eq!(scene.turn(), []);
    scene.network.send(scene.client, b"splice").expect("room");
    scene.network.shutdown_write(scene.client).expect("open");
    assert_eq!(scene.turn(), [(1, 1, false)], "POLLIN");
    assert_eq!(splice(&mut scene, pipe, 4), (Ok(4), Ok(4)));
    assert_eq!(splice(&mut scene, pipe, 100), (Ok(2), Ok(2)));
    assert_eq!(splice(&mut scene, pipe, 100).0, Ok(0), "the end");
    scene.turn();
    assert_eq!(scene.read().0, b"splice");
    scene.sim.close_pipe(pipe);
}

/// A full pipe takes no more, a reset comes behind what had arrived, and only the first who asks learns of it.
#[test]
fn a_pipe_has_a_size_and_a_reset_is_told_once() {
    let mut scene = scene(Chances::CALM);
    let pipe = PipeEnds {
        size: 3,
        ..scene.sim.open_pipe(65_536).expect("a pipe")
    };
    scene.network.send(scene.client, b"splice").expect("room");
    scene.turn();
    let fill = |scene: &mut Scene| scene.sim.fill_pipe(scene.fd, pipe, 100).map_err(|errno| -errno.0);
    assert_eq!(fill(&mut scene), Ok(3));
    assert_eq!(fill(&mut scene), Err(EAGAIN));
    scene.network.reset(scene.client);
    scene.turn();
    let drained = scene.sim.drain_pipe(pipe, scene.fd, 100).map_err(|errno| -errno.0);
    assert_eq!(drained, Err(ECONNRESET));
    scene.sim.close_pipe(pipe);
    let empty = scene.sim.open_pipe(65_536).expect("a pipe");
    let fill = |scene: &mut Scene| scene.sim.fill_pipe(scene.fd, empty, 100).map_err(|errno| -errno.0);
    assert_eq!((fill(&mut scene), fill(&mut scene)), (Ok(3), Ok(0)));
    scene.sim.close_pipe(empty);
    assert_eq!(scene.network.seen().pipes_closed_with_bytes, 2, "both held three");
}
