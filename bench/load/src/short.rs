//! Short connections: connect, send 64 bytes, receive 64 bytes and the end of stream, close; a fixed number at once. Or the
//! same with a ClientHello ([`hello`]) in place of the 64 bytes that are sent.
//!
//! Prints one JSON line: `{"connections":N,"errors":N,"seconds":S,"p50_us":U,"p99_us":U,"first_error":"..."}`.
//! Latency runs from `connect` to the end of stream. An error is never retried; it is counted.

use crate::backend::SHORT_BYTES;
use crate::exchange::is_not_yet;
use crate::hello;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// 64 bytes with the end that the backend waits for.
const REQUEST: &[u8; 64] = b"GET / HTTP/1.0\r\nX-Padding: 0123456789abcdef0123456789abcdef0\r\n\r\n";

const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

struct Short {
    stream: TcpStream,
    started: Instant,
    request: &'static [u8],
    sent: bool,
    received: usize,
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<f64>,
    errors: usize,
    first_error: Option<String>,
}

/// How many are to be made, and how many were.
struct Load {
    target: SocketAddr,
    count: usize,
    /// Sent in turn.
    requests: Vec<&'static [u8]>,
    started: usize,
    tally: Tally,
}

/// `names`: how many names the hellos ask for in turn; with 0 no hellos are sent.
pub(crate) fn run(target: SocketAddr, concurrency: usize, count: usize, names: usize) -> Result<(), String> {
    let mut poll = Poll::new().map_err(|e| format!("epoll: {e}"))?;
    let mut events = Events::with_capacity(2 * concurrency);
    let mut slots: Vec<Option<Short>> = Vec::new();
    slots.resize_with(concurrency, || None);
    let mut load = Load {
        target,
        count,
        requests: requests(names)?,
        started: 0,
        tally: Tally::default(),
    };
    let begin = Instant::now();

    for (slot, place) in slots.iter_mut().enumerate() {
        load.refill(&poll, slot, place)?;
    }
    while load.tally.latencies_us.len() + load.tally.errors < count {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(|e| format!("epoll wait: {e}"))?,
        }
        for event in &events {
            let Token(slot) = event.token();
            if settle(&mut slots[slot], &mut load.tally) {
                load.refill(&poll, slot, &mut slots[slot])?;
            }
        }
        if events.is_empty() {
            for (slot, place) in slots.iter_mut().enumerate() {
                if place
                    .as_ref()
                    .is_some_and(|short| short.started.elapsed() > CONNECTION_TIMEOUT)
                {
                    *place = None;
                    load.tally.error("no end of stream within 5 seconds");
                    load.refill(&poll, slot, place)?;
                }
            }
        }
    }
    report(&mut load.tally, begin.elapsed());
    Ok(())
}

fn requests(names: usize) -> Result<Vec<&'static [u8]>, String> {
    match names {
        0 => Ok(vec![REQUEST]),
        _ if names <= hello::NAMES.len() => Ok((0..names).map(hello::for_name).collect()),
        _ => Err(format!("--names {names}: there are {}", hello::NAMES.len())),
    }
}

impl Load {
    /// Starts the next connection in an empty slot, if any is left to start.
    fn refill(&mut self, poll: &Poll, slot: usize, place: &mut Option<Short>) -> Result<(), String> {
        while place.is_none() && self.started < self.count {
            let request = self.requests[self.started % self.requests.len()];
            self.started += 1;
            let now = Instant::now();
            match TcpStream::connect(self.target) {
                Err(e) => self.tally.error(&format!("connect: {e}")),
                Ok(stream) => {
                    let mut short = Short {
                        stream,
                        started: now,
                        request,
                        sent: false,
                        received: 0,
                    };
                    poll.registry()
                        .register(&mut short.stream, Token(slot), Interest::READABLE | Interest::WRITABLE)
                        .map_err(|e| format!("epoll registration: {e}"))?;
                    *place = Some(short);
                }
            }
        }
        Ok(())
    }
}

/// Advances one connection; `true` when it ended and its slot is free.
fn settle(place: &mut Option<Short>, tally: &mut Tally) -> bool {
    // Empty when an earlier event of this batch ended it and nothing was left to start.
    let Some(short) = place.as_mut() else { return false };
    match short.advance() {
        Ok(()) => tally.latencies_us.push(short.started.elapsed().as_secs_f64() * 1e6),
        Err(e) if is_not_yet(&e) => return false,
        Err(e) => tally.error(&format!("after {} of {SHORT_BYTES} bytes: {e}", short.received)),
    }
    *place = None;
    true
}

impl Short {
    /// `Ok`: the whole response and the end of stream were received.
    fn advance(&mut self) -> std::io::Result<()> {
        if !self.sent {
            // An empty send buffer takes a request whole, and a hello too.
            self.stream.write_all(self.request)?;
            self.sent = true;
        }
        let mut buffer = [0; 2 * SHORT_BYTES];
        loop {
            match self.stream.read(&mut buffer)? {
                0 if self.received == SHORT_BYTES => return Ok(()),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.received += n,
            }
        }
    }
}

impl Tally {
    fn error(&mut self, message: &str) {
        self.errors += 1;
        self.first_error
            .get_or_insert_with(|| message.replace(['"', '\\'], "'"));
    }
}

fn report(tally: &mut Tally, elapsed: Duration) {
    tally.latencies_us.sort_by(f64::total_cmp);
    println!(
        r#"{{"connections":{},"errors":{},"seconds":{:.6},"p50_us":{:.1},"p99_us":{:.1},"first_error":"{}"}}"#,
        tally.latencies_us.len(),
        tally.errors,
        elapsed.as_secs_f64(),
        percentile(&tally.latencies_us, 0.50),
        percentile(&tally.latencies_us, 0.99),
        tally.first_error.as_deref().unwrap_or_default(),
    );
}

/// Nearest rank of sorted values; 0 when there are none.
pub(crate) fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.50), 50.0);
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.50), 0.0);
    }
}
