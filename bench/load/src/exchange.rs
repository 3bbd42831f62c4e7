//! Echo round trips over many connections, a bounded number of them under way at once.
//!
//! Owns the connections it is given slots for; never sleeps, never retries. Called by [`crate::idle`].

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes sent and expected back per round trip.
const MESSAGE: &[u8; 32] = b"ringway bench: are you alive? ..";

/// Connections under way at once: far below any listen backlog, so that opening is not itself a test of it.
const UNDER_WAY_MAX: usize = 128;

/// A round trip that takes longer counts as failed.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// One held connection.
pub(crate) struct Held {
    stream: TcpStream,
    sent: bool,
    /// Of the message that is under way, 0 to 32.
    received: usize,
    started: Instant,
}

/// Opens `count` connections and exchanges one message on each. Failed ones are left out of the result.
pub(crate) fn open(poll: &mut Poll, target: SocketAddr, count: usize) -> Result<Vec<Option<Held>>, String> {
    let mut held: Vec<Option<Held>> = Vec::with_capacity(count);
    held.resize_with(count, || None);
    run(poll, &mut held, |poll, slot| {
        let stream = TcpStream::connect(target).map_err(|e| format!("connect to {target}: {e}"))?;
        let mut fresh = Held {
            stream,
            sent: false,
            received: 0,
            started: Instant::now(),
        };
        poll.registry()
            .register(&mut fresh.stream, Token(slot), Interest::READABLE | Interest::WRITABLE)
            .map_err(|e| format!("epoll registration: {e}"))?;
        Ok(Some(fresh))
    })?;
    Ok(held)
}

/// Exchanges one message on every connection that is left; those that fail are dropped. Returns how many succeeded.
pub(crate) fn check(poll: &mut Poll, held: &mut [Option<Held>]) -> Result<usize, String> {
    // `run` starts from empty slots, so the connections wait here until their turn.
    let mut waiting: Vec<Option<Held>> = held.iter_mut().map(Option::take).collect();
    run(poll, held, |_, slot| {
        Ok(waiting[slot].take().map(|mut again| {
            again.sent = false;
            again.received = 0;
            again.started = Instant::now();
            again
        }))
    })?;
    Ok(held.iter().flatten().count())
}

/// Fills every slot through `start` and drives each connection through one exchange.
fn run(
    poll: &mut Poll,
    held: &mut [Option<Held>],
    mut start: impl FnMut(&mut Poll, usize) -> Result<Option<Held>, String>,
) -> Result<(), String> {
    let mut events = Events::with_capacity(2 * UNDER_WAY_MAX);
    let mut under_way: Vec<usize> = Vec::with_capacity(UNDER_WAY_MAX);
    let mut next = 0;
    while next < held.len() || !under_way.is_empty() {
        while under_way.len() < UNDER_WAY_MAX && next < held.len() {
            held[next] = start(poll, next)?;
            if held[next].is_some() {
                under_way.push(next);
            }
            next += 1;
        }
        advance_all(held, &mut under_way);
        if under_way.is_empty() {
            continue;
        }
        // The events only end the wait: every connection under way is advanced anyway.
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(format!("epoll wait: {e}")),
            _ => advance_all(held, &mut under_way),
        }
    }
    Ok(())
}

fn advance_all(held: &mut [Option<Held>], under_way: &mut Vec<usize>) {
    under_way.retain(|&slot| {
        let progress = held[slot].as_mut().map_or(Progress::Failed, Held::advance);
        if progress == Progress::Failed {
            held[slot] = None;
        }
        progress == Progress::UnderWay
    });
}

#[derive(PartialEq, Eq)]
enum Progress {
    UnderWay,
    Done,
    Failed,
}

impl Held {
    fn advance(&mut self) -> Progress {
        match self.try_exchange() {
            Ok(true) => Progress::Done,
            Err(e) if !is_not_yet(&e) => Progress::Failed,
            _ if self.started.elapsed() > EXCHANGE_TIMEOUT => Progress::Failed,
            _ => Progress::UnderWay,
        }
    }

    /// `Ok(true)`: the whole message came back.
    fn try_exchange(&mut self) -> std::io::Result<bool> {
        if !self.sent {
            // 32 bytes into an empty send buffer are taken whole.
            self.stream.write_all(MESSAGE)?;
            self.sent = true;
        }
        let mut buffer = [0; MESSAGE.len()];
        while self.received < MESSAGE.len() {
            let n = self.stream.read(&mut buffer[self.received..])?;
            let expected = &MESSAGE[self.received..self.received + n];
            if n == 0 || &buffer[self.received..self.received + n] != expected {
                return Err(ErrorKind::InvalidData.into());
            }
            self.received += n;
        }
        Ok(true)
    }
}

/// The connection is being established, or nothing has come yet.
pub(crate) fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}
