//! P14: a UDP flood does not evict players.

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::udp::{LONGEST, Server, ask, client, free_udp, inet};
use std::io::{ErrorKind, IoSlice};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);
const SESSIONS_MAX: u64 = 8_192;
const SOURCES: u32 = 200_000;
const PLAYERS: usize = 64;
/// Datagrams of one player in a second.
const TICKS: u32 = 50;

/// One datagram from each of 200,000 addresses of loopback, over and over, so many in a second.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(front: SocketAddr, per_second: u32) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), sent.clone());
        let thread = thread::spawn(move || flood(front, per_second, &stopped, &counted));
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread
            .take()
            .expect("taken once")
            .join()
            .expect("the flood does not panic");
        self.sent()
    }
}

fn flood(front: SocketAddr, per_second: u32, stopped: &AtomicBool, sent: &AtomicU64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let SocketAddr::V4(front) = front else {
        unreachable!("the front is at 127.0.0.1")
    };
    let to = SockaddrIn::from(SocketAddrV4::new(*front.ip(), front.port()));
    let (began, mut source) = (Instant::now(), 0_u32);
    while !stopped.load(Ordering::Acquire) {
        let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        if sent.load(Ordering::Relaxed) >= due {
            // Nothing tells of the next datagram's time.
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        // 127.16.0.0 and up, all of them addresses of this machine.
        let from = u32::from_be_bytes([127, 16, 0, 0]) + source;
        let info = nix::libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: nix::libc::in_addr { s_addr: from.to_be() },
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let junk = [IoSlice::new(b"junk")];
        // Whatever cannot be sent now is no loss.
        let _ = sendmsg(socket.as_raw_fd(), &junk, &control, MsgFlags::MSG_DONTWAIT, Some(&to));
        source = (source + 1) % SOURCES;
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Players that send steadily; how many datagrams, and how many of them had no answer.
fn play(players: &[UdpSocket], time: Duration) -> (u64, u64) {
    let began = Instant::now();
    let (mut sent, mut answered) = (0_u64, 0_u64);
    let mut buffer = [0; 64];
    let end = began + time + Duration::from_secs(1);
    while Instant::now() < end && !(began.elapsed() > time && sent == answered) {
        let due = (began.elapsed().min(time).as_secs_f64() * f64::from(TICKS) * PLAYERS as f64) as u64;
        while sent < due {
            players[sent as usize % PLAYERS]
                .send(&sent.to_be_bytes())
                .expect("send");
            sent += 1;
        }
        for player in players {
            loop {
                match player.recv(&mut buffer) {
                    Ok(9) => answered += 1,
                    Ok(len) => panic!("an answer of {len} bytes"),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("a player's socket: {error}"),
                }
            }
        }
        // Nothing tells of the next tick's time.
        thread::sleep(Duration::from_micros(500));
    }
    (sent, sent - answered)
}

/// A game server that answers players, whose datagrams have eight bytes, and nobody else.
fn game_server() -> Server {
    Server::start_choosy(b'g', |datagram| datagram.len() != 4)
}

#[test]
fn p14_a_udp_flood_does_not_evict_players() {
    let _turn = Turn::start("p14_a_udp_flood_does_not_evict_players", Duration::from_secs(120));
    let mut promise = Promise::new("P14", "a UDP flood does not evict players");
    let server = game_server();
    let (front, warm_up) = (free_udp(), free_udp());
    let target = server.as_address();
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("warm_up", &warm_up, "pool")
        .listener_key("max_sessions", "64")
        .listener_key("session_timeout", "1s")
        .listener_key("unanswered_timeout", "1s")
        .udp_listener("front", &front, "pool")
        .listener_key("max_sessions", &SESSIONS_MAX.to_string())
        .pool("pool", "round_robin", &[&target]);
    let ringway = Ringway::start(&setup);
    let per_second = figure(40_000, 60_000);
    // Receive buffers are not the sessions': all of them are used once before memory is looked at.
    let flood = Flood::start(inet(&warm_up), per_second);
    assert!(wait_for(SOON * 2, || (flood.sent() > 20_000).then_some(())).is_some());
    flood.stop();
    let players: Vec<UdpSocket> = (0..PLAYERS).map(|_| client(inet(&front), SOON)).collect();
    for player in &players {
        ask(player, b"12345678").expect("an answer");
        player.set_nonblocking(true).expect("O_NONBLOCK");
    }
    let open = || ringway.count("ringway_udp_sessions", &[("listener", "front")]);
    let before = (ringway.process.memory(), open());

    let flood = Flood::start(inet(&front), per_second);
    let full = wait_for(SOON * 4, || (open() >= SESSIONS_MAX).then(|| ringway.process.memory()));
    let held = full.unwrap_or_default().saturating_sub(before.0);
    let each = held / (SESSIONS_MAX - before.1);
    let (sent, lost) = play(&players, Duration::from_secs(figure(6, 20)));
    let most = open();
    let flooded = flood.stop();
    let dropped = |reason| {
        ringway.count(
            "ringway_udp_dropped_total",
            &[("listener", "front"), ("reason", reason)],
        )
    };

    promise.figure(
        format!("{SOURCES} sources, {per_second} datagrams a second"),
        format!("{flooded} sent"),
        flooded >= u64::from(SOURCES),
    );
    promise.at_most("sessions", most, SESSIONS_MAX);
    promise.figure(
        "the bound is reached",
        format!("{} dropped", dropped("max_sessions")),
        full.is_some() && dropped("max_sessions") > 0,
    );
    promise.at_most("bytes of process memory for each session", each, 1_024);
    let percent = lost as f64 / sent as f64 * 100.0;
    promise.figure(
        format!("{PLAYERS} players lose less than 0.1 % of {sent}"),
        format!(
            "{lost} ({percent:.3} %), the kernel dropped {}",
            dropped("receive_full")
        ),
        percent < 0.1,
    );
    for player in &players {
        player.set_nonblocking(false).expect("O_NONBLOCK");
    }
    let lengths = [0, 1, LONGEST - 1].map(|len| {
        let answer = ask(&players[0], &vec![1; len]).map(|answer| answer.len());
        answer.is_ok_and(|answered| answered == len + 1)
    });
    promise.figure(
        "0, 1 and 65506 bytes pass",
        format!("{lengths:?}"),
        lengths.iter().all(|&passes| passes),
    );
    let gone = wait_for(Duration::from_secs(20), || (open() <= PLAYERS as u64).then_some(()));
    assert!(gone.is_some(), "{} sessions are left", open());
    server.send_to(b"loop", inet(&front));
    let loops = wait_for(SOON, || (dropped("loop") > 0).then_some(()));
    promise.figure(
        "a backend as source is dropped",
        format!("{}", dropped("loop")),
        loops.is_some(),
    );
    promise.finish();
    drop(players);
    drop(ringway);
}
