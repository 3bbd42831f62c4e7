//! Datagrams: sockets that each send one, or a train of them, and wait until all have come back (closed loop); or that send
//! at a rate, whatever comes back (open loop: a round trip is timed from when it was due).
//!
//! Prints one JSON line: `{"round_trips":N,"datagrams":N,"lost":N,"stalls":N,"seconds":S,"p50_us":U,"p99_us":U}`. What has
//! not come back after 200 ms counts as lost and is sent anew; a round trip of more than 20 ms is a stall.

use crate::exchange::is_not_yet;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LOST_AFTER: Duration = Duration::from_millis(200);
const STALL: Duration = Duration::from_millis(20);
const BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;

/// How much.
pub(crate) struct Load {
    pub(crate) sockets: usize,
    pub(crate) seconds: u64,
    /// Of one datagram.
    pub(crate) bytes: usize,
    /// Datagrams that are sent with one call (UDP_SEGMENT, udp(7)).
    pub(crate) train: usize,
    /// Datagrams in a second, over all sockets; 0: as they come back.
    pub(crate) rate: usize,
}

struct Pinger {
    socket: UdpSocket,
    started: Instant,
    /// Datagrams of this round that have not come back.
    missing: usize,
    round: u32,
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<f64>,
    lost: u64,
    stalls: u64,
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Sends back whatever comes, until the process is killed.
pub(crate) fn echo() -> Result<(), String> {
    let socket = io("bind", std::net::UdpSocket::bind("127.0.0.1:0"))?;
    // All sockets of the load send here; what it cannot take must not count as the balancer's loss. Root may have this
    // much, others get what the system allows.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &(16 << 20)));
    let address = io("getsockname", socket.local_addr())?;
    println!(r#"{{"udp":{}}}"#, address.port());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // Errors are those of clients that are gone.
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

pub(crate) fn run(target: SocketAddr, load: &Load) -> Result<(), String> {
    if load.rate > 0 {
        return run_open(target, load);
    }
    let mut poll = io("epoll", Poll::new())?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut pingers = Vec::new();
    for slot in 0..load.sockets {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut socket = io("bind", UdpSocket::bind(any))?;
        io("connect", socket.connect(target))?;
        if load.train > 1 {
            setsockopt(&socket, sockopt::UdpGsoSegment, &(load.bytes as i32))
                .map_err(|e| format!("UDP_SEGMENT: {e}"))?;
        }
        let registered = poll.registry().register(&mut socket, Token(slot), Interest::READABLE);
        io("epoll registration", registered)?;
        pingers.push(Pinger {
            socket,
            started: Instant::now(),
            missing: 0,
            round: 0,
        });
    }
    let (mut tally, begin) = (Tally::default(), Instant::now());
    let end = begin + Duration::from_secs(load.seconds);
    let mut payload = vec![b'u'; load.bytes * load.train];
    let mut buffer = vec![0; BUFFER_BYTES];
    for pinger in &mut pingers {
        pinger.send(&mut payload, load)?;
    }
    while Instant::now() < end {
        match poll.poll(&mut events, Some(Duration::from_millis(20))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => io("epoll wait", other)?,
        }
        for event in &events {
            let Token(slot) = event.token();
            if pingers[slot].receive(&mut buffer, load, &mut tally)? {
                pingers[slot].send(&mut payload, load)?;
            }
        }
        for pinger in &mut pingers {
            if pinger.started.elapsed() > LOST_AFTER {
                tally.lost += pinger.missing as u64;
                tally.stalls += 1;
                pinger.send(&mut payload, load)?;
            }
        }
    }
    tally.report(load, begin.elapsed());
    Ok(())
}

/// Each datagram has its number in front; the sockets take turns.
fn run_open(target: SocketAddr, load: &Load) -> Result<(), String> {
    const NUMBER: usize = size_of::<u64>();
    if load.train > 1 || load.bytes < NUMBER {
        return Err(format!("--rate takes single datagrams of {NUMBER} bytes or more"));
    }
    let mut sockets = Vec::new();
    for _ in 0..load.sockets {
        let socket = io("bind", std::net::UdpSocket::bind("127.0.0.1:0"))?;
        io("connect", socket.connect(target))?;
        io("O_NONBLOCK", socket.set_nonblocking(true))?;
        sockets.push(socket);
    }
    let (mut tally, begin) = (Tally::default(), Instant::now());
    let (end, each) = (
        begin + Duration::from_secs(load.seconds),
        Duration::from_secs_f64(1.0 / load.rate as f64),
    );
    // When each was due, until it is back.
    let mut due: Vec<Option<Instant>> = Vec::new();
    let mut payload = vec![b'u'; load.bytes];
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut next = begin;
    while Instant::now() < end + LOST_AFTER {
        while next < end && next <= Instant::now() {
            payload[..NUMBER].copy_from_slice(&(due.len() as u64).to_be_bytes());
            // What was refused shows as lost.
            let _ = sockets[due.len() % load.sockets].send(&payload);
            due.push(Some(next));
            next += each;
        }
        for socket in &sockets {
            while let Ok(len) = socket.recv(&mut buffer) {
                let number = buffer[..len]
                    .first_chunk()
                    .map(|bytes| u64::from_be_bytes(*bytes) as usize);
                if let Some(was_due) = number.and_then(|number| due.get_mut(number)?.take()) {
                    let taken = was_due.elapsed();
                    tally.latencies_us.push(taken.as_secs_f64() * 1e6);
                    tally.stalls += u64::from(taken > STALL);
                }
            }
        }
    }
    tally.lost = due.iter().flatten().count() as u64;
    tally.report(load, Duration::from_secs(load.seconds));
    Ok(())
}

impl Pinger {
    fn send(&mut self, payload: &mut [u8], load: &Load) -> Result<(), String> {
        self.started = Instant::now();
        self.missing = load.train;
        self.round = self.round.wrapping_add(1);
        // Late answers to a round that was given up must not count for this one.
        for datagram in payload.chunks_mut(load.bytes) {
            let stamp = self.round.to_be_bytes();
            let len = datagram.len().min(stamp.len());
            datagram[..len].copy_from_slice(&stamp[..len]);
        }
        match self.socket.send(payload) {
            // What was refused shows as lost.
            Err(error) if !is_not_yet(&error) && error.kind() != ErrorKind::ConnectionRefused => {
                Err(format!("send: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes what has come; `true`: the round is over.
    fn receive(&mut self, buffer: &mut [u8], load: &Load, tally: &mut Tally) -> Result<bool, String> {
        loop {
            let len = match self.socket.recv(buffer) {
                Ok(len) => len,
                Err(error) if is_not_yet(&error) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(false),
                Err(error) => return Err(format!("recv: {error}")),
            };
            let stamp = self.round.to_be_bytes();
            let known = len.min(stamp.len());
            if buffer[..known] != stamp[..known] {
                continue;
            }
            self.missing = self.missing.saturating_sub(len.div_ceil(load.bytes).max(1));
            if self.missing == 0 {
                let taken = self.started.elapsed();
                tally.latencies_us.push(taken.as_secs_f64() * 1e6);
                tally.stalls += u64::from(taken > STALL);
                return Ok(true);
            }
        }
    }
}

impl Tally {
    fn report(&mut self, load: &Load, elapsed: Duration) {
        self.latencies_us.sort_by(f64::total_cmp);
        let count = self.latencies_us.len();
        let at = |share: f64| {
            let position = (share * count as f64) as usize;
            self.latencies_us
                .get(position.min(count.saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        println!(
            r#"{{"round_trips":{count},"datagrams":{},"lost":{},"stalls":{},"seconds":{:.6},"p50_us":{:.1},"p99_us":{:.1}}}"#,
            count * load.train,
            self.lost,
            self.stalls,
            elapsed.as_secs_f64(),
            at(0.5),
            at(0.99),
        );
    }
}
