//! Long connections that begin with a ClientHello: what a relay costs once it has been routed.
//!
//! Prints `established N` once each hello was answered, and waits for the line `go`. Then each connection sends a request
//! and waits for its answer, again and again, until there were as many as asked for. Prints one JSON line:
//! `{"round_trips":N,"seconds":S,"p50_us":U,"p99_us":U}`, and stays until stdin ends. Any error ends the process:
//! connections that stand must stay.

use crate::backend::{HTTP_RESPONSE, SHORT_BYTES};
use crate::exchange::is_not_yet;
use crate::{hello, short};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// As wrk sends it, with an address of usual length.
const REQUEST: &[u8; 41] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:12345\r\n\r\n";

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

struct Long {
    stream: TcpStream,
    sent: Instant,
    /// Of the answer that is under way, 0 to the whole of it.
    missing: usize,
}

pub(crate) fn run(target: SocketAddr, connections: usize, count: usize) -> Result<(), String> {
    let mut poll = Poll::new().map_err(|e| format!("epoll: {e}"))?;
    let mut held = Vec::with_capacity(connections);
    for slot in 0..connections {
        let mut stream = greeted(target).map_err(|e| format!("hello {slot} to {target}: {e}"))?;
        poll.registry()
            .register(&mut stream, Token(slot), Interest::READABLE)
            .map_err(|e| format!("epoll registration: {e}"))?;
        held.push(Long {
            stream,
            sent: Instant::now(),
            missing: 0,
        });
    }
    println!("established {}", held.len());
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| format!("stdin: {e}"))?;
    if line.trim() != "go" {
        return Err(format!("{line:?} is not `go`"));
    }
    ping(&mut poll, &mut held, count)?;
    // Closing is not part of it: the connections stand until whoever measures has read the clocks and ends stdin.
    line.clear();
    std::io::stdin()
        .read_line(&mut line)
        .map(|_| ())
        .map_err(|e| format!("stdin: {e}"))
}

/// A connection whose hello was answered.
fn greeted(target: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = std::net::TcpStream::connect_timeout(&target, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(hello::for_name(0))?;
    stream.read_exact(&mut [0; SHORT_BYTES])?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

fn ping(poll: &mut Poll, held: &mut [Long], count: usize) -> Result<(), String> {
    let mut events = Events::with_capacity(2 * held.len());
    let mut latencies_us = Vec::with_capacity(count);
    let begin = Instant::now();
    let mut started = 0;
    for long in held.iter_mut().take(count) {
        long.send()?;
        started += 1;
    }
    while latencies_us.len() < count {
        match poll.poll(&mut events, Some(ANSWER_TIMEOUT)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(|e| format!("epoll wait: {e}"))?,
        }
        if events.is_empty() {
            return Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        }
        for event in &events {
            let Token(slot) = event.token();
            if held[slot].receive()? {
                latencies_us.push(held[slot].sent.elapsed().as_secs_f64() * 1e6);
                if started < count {
                    held[slot].send()?;
                    started += 1;
                }
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    latencies_us.sort_by(f64::total_cmp);
    println!(
        r#"{{"round_trips":{},"seconds":{seconds:.6},"p50_us":{:.1},"p99_us":{:.1}}}"#,
        latencies_us.len(),
        short::percentile(&latencies_us, 0.50),
        short::percentile(&latencies_us, 0.99),
    );
    Ok(())
}

impl Long {
    fn send(&mut self) -> Result<(), String> {
        self.sent = Instant::now();
        self.missing = HTTP_RESPONSE.len();
        // 41 bytes into an empty send buffer are taken whole.
        self.stream.write_all(REQUEST).map_err(|e| format!("send: {e}"))
    }

    /// Takes what has come; `true`: it was the rest of an answer.
    fn receive(&mut self) -> Result<bool, String> {
        // Larger than an answer, and there is never more than one under way: a receive leaves nothing behind, except the
        // end of stream, which the next request runs into.
        let mut buffer = [0; 2 * HTTP_RESPONSE.len()];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("a connection ended".to_owned()),
            Ok(n) if n > self.missing => Err(format!("{n} bytes where {} were missing", self.missing)),
            Ok(n) => {
                self.missing -= n;
                Ok(self.missing == 0)
            }
            Err(e) if is_not_yet(&e) => Ok(false),
            Err(e) => Err(format!("receive: {e}")),
        }
    }
}
