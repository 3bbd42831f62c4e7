//! UDP: a backend is killed, or leaves its pool, while clients send steadily.

use ringway_tests::address::Address;
use ringway_tests::dns::{Answer, Dns};
use ringway_tests::process::wait_for;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::udp::{Server, ask, client, free_udp, inet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);
const SESSIONS: usize = 60;
/// Over all sessions.
const PER_SECOND: u32 = 2_000;

/// A datagram of the load.
#[derive(Clone, Copy, Debug)]
struct Sent {
    session: usize,
    at: Instant,
    answered: Option<(Instant, u8)>,
}

/// Many sessions that send in turn, whatever is answered.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sent>>,
}

impl Load {
    fn start(front: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || run(front, &stopped));
        Self { stop, thread }
    }

    /// Everything that was sent, once the last answers had time to come.
    fn finish(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the load does not panic")
    }
}

fn run(front: SocketAddr, stopped: &AtomicBool) -> Vec<Sent> {
    let sockets: Vec<UdpSocket> = (0..SESSIONS).map(|_| client(front, SOON)).collect();
    for socket in &sockets {
        socket.set_nonblocking(true).expect("O_NONBLOCK");
    }
    let mut sent: Vec<Sent> = Vec::new();
    let mut next = Instant::now();
    let mut end = None;
    let mut buffer = [0; 64];
    while end.is_none_or(|end| Instant::now() < end) {
        if end.is_none() && stopped.load(Ordering::Acquire) {
            end = Some(Instant::now() + Duration::from_millis(300));
        }
        if end.is_none() && Instant::now() >= next {
            let number = sent.len();
            let session = number % SESSIONS;
            sent.push(Sent {
                session,
                at: Instant::now(),
                answered: None,
            });
            sockets[session].send(&(number as u64).to_be_bytes()).expect("send");
            next += Duration::from_secs(1) / PER_SECOND;
        }
        let mut idle = true;
        for socket in &sockets {
            match socket.recv(&mut buffer) {
                Ok(len) => {
                    assert_eq!(len, 9, "an answer of another length");
                    let number = u64::from_be_bytes(buffer[1..9].try_into().expect("eight bytes"));
                    sent[number as usize].answered = Some((Instant::now(), buffer[0]));
                    idle = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("a client's socket: {error}"),
            }
        }
        if idle {
            // Nothing tells of the next datagram's time.
            thread::sleep(Duration::from_micros(100));
        }
    }
    sent
}

fn setup(front: &Address, servers: &[Server], on_backend_down: &str) -> Setup {
    let addresses: Vec<Address> = servers.iter().map(Server::as_address).collect();
    let addresses: Vec<&Address> = addresses.iter().collect();
    Setup::new()
        .top("workers", "2")
        .udp_listener("front", front, "pool")
        .listener_key("session_timeout", "1s")
        .pool("pool", "round_robin", &addresses)
        .pool_key("on_backend_down", on_backend_down)
}

/// Waits until the load has been answered by every server.
fn all_serve(servers: &[Server]) {
    let served = || servers.iter().all(|server| server.served() > 200).then_some(());
    assert!(wait_for(SOON, served).is_some(), "{servers:?}");
}

/// Waits until each of them has served so many more.
fn serve_more(servers: &[Server], more: u64) {
    let before: Vec<u64> = servers.iter().map(Server::served).collect();
    let have = || {
        servers
            .iter()
            .zip(&before)
            .all(|(server, before)| server.served() >= before + more)
    };
    assert!(wait_for(SOON, || have().then_some(())).is_some(), "{servers:?}");
}

#[test]
fn with_move_a_killed_backend_costs_what_was_under_way() {
    let _turn = Turn::start("with_move_a_killed_backend_costs_what_was_under_way", SOON * 6);
    let mut servers: Vec<Server> = b"abc".iter().map(|&letter| Server::start(letter)).collect();
    let front = free_udp();
    let ringway = Ringway::start(&setup(&front, &servers, "move"));
    let load = Load::start(inet(&front));
    all_serve(&servers);
    drop(servers.remove(0));
    let killed = Instant::now();
    serve_more(&servers, u64::from(PER_SECOND) / 2);
    let sent = load.finish();

    // The next datagram to the killed backend is the first that an ICMP error answers: within 1.5 ms at this rate.
    let lost: Vec<&Sent> = sent.iter().filter(|one| one.answered.is_none()).collect();
    assert!(!lost.is_empty(), "nobody noticed that a backend was killed");
    let (first, last) = (lost[0].at, lost[lost.len() - 1].at);
    // Where others use the machine as well, threads wait for their turn.
    let detected_by = killed + Duration::from_millis(figure(100, 20));
    assert!(
        last <= detected_by,
        "{} lost, the last one {:?} after the kill",
        lost.len(),
        last.saturating_duration_since(killed)
    );
    // The server's thread looks every 50 ms whether it is to stop; its socket is there until then.
    for session in 0..SESSIONS {
        let after = |one: &&Sent| one.session == session && one.at >= first;
        let answered = sent.iter().filter(after).find_map(|one| one.answered);
        let (at, _) = answered.unwrap_or_else(|| panic!("session {session} is dead"));
        let waited = at.duration_since(first);
        assert!(
            waited < Duration::from_millis(figure(300, 100)),
            "session {session} waited for {waited:?}"
        );
    }
    let gone = sent
        .iter()
        .filter(|one| one.at > detected_by && matches!(one.answered, Some((_, b'a'))))
        .count();
    assert_eq!(gone, 0, "answers of a killed backend");
    println!("{} of {} lost, within {:?}", lost.len(), sent.len(), last - first);
    assert_eq!(
        ringway.count("ringway_udp_sessions", &[]),
        SESSIONS as u64,
        "no session was opened anew"
    );
    assert_eq!(
        ringway.count("ringway_udp_sessions_moved_total", &[]),
        SESSIONS as u64 / 3
    );
    ringway.finish();
}

#[test]
fn with_keep_no_session_moves() {
    let _turn = Turn::start("with_keep_no_session_moves", SOON * 6);
    let mut servers: Vec<Server> = b"abc".iter().map(|&letter| Server::start(letter)).collect();
    let front = free_udp();
    let ringway = Ringway::start(&setup(&front, &servers, "keep"));
    let load = Load::start(inet(&front));
    all_serve(&servers);
    let address = servers[0].address;
    drop(servers.remove(0));
    serve_more(&servers, u64::from(PER_SECOND) / 6);
    let again = Server::start_on(b'a', UdpSocket::bind(address).expect("its port"));
    let back = Instant::now();
    assert!(
        wait_for(SOON, || (again.served() > 100).then_some(())).is_some(),
        "nobody came back"
    );
    let sent = load.finish();
    for session in 0..SESSIONS {
        let mut letters: Vec<u8> = sent
            .iter()
            .filter(|one| one.session == session)
            .filter_map(|one| one.answered.map(|(_, letter)| letter))
            .collect();
        letters.dedup();
        assert_eq!(letters.len(), 1, "session {session} was served by {letters:?}");
    }
    let late = sent
        .iter()
        .filter(|one| one.at > back + Duration::from_millis(10) && one.answered.is_none());
    assert_eq!(late.count(), 0, "lost when the backend was back");
    assert_eq!(ringway.count("ringway_udp_sessions_moved_total", &[]), 0);
    ringway.finish();
}

/// A name loses an address: its sessions stay for `drain_timeout`, and nothing goes there afterwards.
#[test]
fn a_backend_that_left_its_pool_gets_nothing_after_its_drain() {
    let _turn = Turn::start("a_backend_that_left_its_pool_gets_nothing_after_its_drain", SOON * 6);
    let stays = Server::start_at(b's', "127.0.0.21");
    let leaves = UdpSocket::bind(("127.0.0.22", stays.address.port())).expect("a free port");
    let leaves = Server::start_on(b'l', leaves);
    let dns = Dns::start();
    let both = vec![Ipv4Addr::new(127, 0, 0, 21), Ipv4Addr::new(127, 0, 0, 22)];
    dns.set("game.test", Answer::Addresses(both.clone()));
    let front = inet(&free_udp());
    let setup = Setup::verbatim(&format!(
        "drain_timeout: 2s\nlisteners:\n  front: {{ bind: \"{front}\", protocol: udp, pool: pool, session_timeout: 3s }}\n\
         pools:\n  pool: {{ resolve: {{ servers: \"{}\", min_interval: 1s, max_interval: 1s }}, backends: \
         [\"game.test:{}\"] }}\n",
        dns.address,
        stays.address.port()
    ));
    let ringway = Ringway::start(&setup);
    ringway.wait_for_count("ringway_backend_condition", &[("condition", "up")], 2);
    let players: Vec<UdpSocket> = (0..8).map(|_| client(front, SOON)).collect();
    let letters = |players: &[UdpSocket]| -> Vec<u8> {
        let ask = |player: &UdpSocket| match ask(player, b"tick") {
            Ok(answer) => answer[0],
            Err(error) => panic!(
                "no answer: {error}\n{}\n{}",
                ringway.get("/metrics").expect("metrics").1,
                ringway.log()
            ),
        };
        players.iter().map(ask).collect()
    };
    let at_first = letters(&players);
    assert!(at_first.contains(&b'l') && at_first.contains(&b's'), "{at_first:?}");
    dns.set("game.test", Answer::Addresses(both[..1].to_vec()));
    ringway.wait_for_count("ringway_backend_condition", &[("condition", "draining")], 1);
    // Players stay; a new one goes elsewhere.
    assert_eq!(letters(&players), at_first);
    assert_eq!(letters(&[client(front, SOON)]), b"s");
    let left = wait_for(SOON, || {
        letters(&players).iter().all(|&letter| letter == b's').then_some(())
    });
    assert!(left.is_some(), "sessions are still there");
    let served = leaves.served();
    for _ in 0..20 {
        letters(&players);
    }
    assert_eq!(leaves.served(), served, "it got datagrams after its drain");
    ringway.finish();
}
