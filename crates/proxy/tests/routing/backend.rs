//! A connection that a backend has accepted: takes what comes, answers as its temper says.

use crate::client::Saw;
use crate::forge::{self, SSL_REQUEST};
use crate::plan::{Answer, Speech, Temper};
use ringway_runtime::Time;
use ringway_runtime::sim::{Network, PeerId, Random, Read};
use std::time::Duration;

/// Whoever is not asked anything more ends by itself.
const LIFE: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been understood yet.
    First,
    /// It has answered an SSLRequest.
    Answered,
    /// It says what it has to say.
    Talks,
    /// It was asked to cancel.
    Cancels,
    /// It does not speak what it was asked for.
    Sulks,
}

#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) peer: PeerId,
    pub(crate) pool: usize,
    pub(crate) backend: usize,
    pub(crate) number: usize,
    pub(crate) received: Vec<u8>,
    /// What it says, as far as that is known yet.
    pub(crate) says: Vec<u8>,
    pub(crate) sent: usize,
    /// Of `says`, what Ringway keeps for itself.
    pub(crate) kept: usize,
    pub(crate) saw: Saw,
    pub(crate) done: bool,
    pub(crate) wake_at: Option<Time>,
    temper: Temper,
    speech: Speech,
    /// A PROXY header comes first.
    is_told: bool,
    phase: Phase,
    /// Bytes of `received` that were understood.
    read: usize,
    /// Nothing is said before.
    quiet_until: Time,
    shut: bool,
    ends_at: Time,
}

impl Served {
    pub(crate) fn new(
        (peer, number): (PeerId, usize),
        (pool, backend): (usize, usize),
        (temper, speech, is_told): (Temper, Speech, bool),
        now: Time,
    ) -> Self {
        Self {
            peer,
            pool,
            backend,
            number,
            received: Vec::new(),
            says: Vec::new(),
            sent: 0,
            kept: 0,
            saw: Saw::Nothing,
            done: false,
            wake_at: Some(now),
            temper,
            speech,
            is_told,
            phase: Phase::First,
            read: 0,
            quiet_until: now,
            shut: false,
            ends_at: now + LIFE,
        }
    }

    /// The key of this connection's session.
    pub(crate) fn key(&self) -> (u32, Vec<u8>) {
        let pid = 0x4b00 + self.number as u32;
        let long = self.number % 2 == 1;
        (pid, vec![self.number as u8; if long { 32 } else { 4 }])
    }

    pub(crate) fn poll(&mut self, network: &Network, random: &mut Random) {
        self.wake_at = None;
        if self.done {
            return;
        }
        let now = network.now();
        while self.saw == Saw::Nothing {
            match network.receive(self.peer, 1 << 16, &mut self.received) {
                Read::Bytes(_) => {}
                Read::Nothing => break,
                Read::End => self.saw = Saw::End,
                Read::Broken => self.saw = Saw::Broken,
            }
        }
        if self.saw == Saw::Broken || network.is_broken(self.peer) {
            self.saw = Saw::Broken;
            return self.close(network);
        }
        if self.temper.resets.is_some_and(|bytes| self.received.len() >= bytes) {
            self.done = true;
            return network.reset(self.peer);
        }
        while self.understand(now) {}
        if !self.done && self.speak(network, random, now) {
            self.finish(network, now);
        }
    }

    /// Takes one more message in. `false`: there is none.
    fn understand(&mut self, now: Time) -> bool {
        if self.is_told && self.read == 0 {
            match forge::header_len(&self.received) {
                Some(len) => self.read = len,
                None => return false,
            }
        }
        let rest = &self.received[self.read..];
        let is_postgres = matches!(self.speech, Speech::StartTls | Speech::Postgres);
        match self.phase {
            Phase::First if !is_postgres => {
                if rest.is_empty() && !(self.speech == Speech::Any && self.temper.first) {
                    return false;
                }
                self.talk();
            }
            Phase::First | Phase::Answered if rest.first() == Some(&0x16) => self.talk(),
            Phase::First | Phase::Answered => {
                let Some(len) = rest.first_chunk() else { return false };
                let len = u32::from_be_bytes(*len) as usize;
                if rest.len() < len || len < 8 {
                    return false;
                }
                if rest.starts_with(&SSL_REQUEST) {
                    self.answer(now);
                } else if forge::is_cancel_request(rest) {
                    self.phase = Phase::Cancels;
                } else {
                    let (pid, key) = self.key();
                    self.says.extend(forge::server_start(pid, &key));
                    self.talk();
                }
                self.read += len;
                return true;
            }
            Phase::Talks | Phase::Cancels | Phase::Sulks => return false,
        }
        true
    }

    fn answer(&mut self, now: Time) {
        self.phase = Phase::Answered;
        self.quiet_until = now + self.temper.thinks;
        if self.speech == Speech::Postgres {
            return self.says.push(b'N');
        }
        match self.temper.answer {
            Answer::Yes => self.says.push(b'S'),
            Answer::More => self.says.extend(b"S!?"),
            Answer::No => {
                self.says.push(b'N');
                self.phase = Phase::Sulks;
            }
            Answer::Nothing => self.phase = Phase::Sulks,
            Answer::Close => self.phase = Phase::Cancels,
        }
        self.kept = 1;
    }

    fn talk(&mut self) {
        self.phase = Phase::Talks;
        if self.shut {
            return;
        }
        let number = self.number;
        self.says
            .extend((0..self.temper.talks).map(|at| (at * 13 + number * 5 + at / 251) as u8));
    }

    /// `true` when it has said everything.
    fn speak(&mut self, network: &Network, random: &mut Random, now: Time) -> bool {
        while self.sent < self.says.len() {
            if now < self.quiet_until {
                self.wake_at = Some(self.quiet_until);
                return false;
            }
            // The answer and what comes with it are one piece.
            let piece = random
                .size(1, self.temper.piece)
                .max(if self.sent == 0 { 3 } else { 1 });
            let until = self.says.len().min(self.sent + piece);
            match network.send(self.peer, &self.says[self.sent..until]) {
                Ok(0) | Err(_) => return false,
                Ok(n) => self.sent += n,
            }
            if self.temper.piece < 100 && random.chance(300) {
                self.quiet_until = now + Duration::from_micros(random.below(5_000));
            }
        }
        true
    }

    fn finish(&mut self, network: &Network, now: Time) {
        let ends = self.saw == Saw::End || now >= self.ends_at || self.phase == Phase::Cancels;
        if ends && !self.shut {
            self.shut = network.shutdown_write(self.peer).is_ok();
        } else if !ends {
            self.wake_at = Some(self.ends_at);
        }
        if self.saw == Saw::End || self.phase == Phase::Cancels {
            self.close(network);
        }
    }

    pub(crate) fn close(&mut self, network: &Network) {
        if !self.done {
            self.done = true;
            network.close(self.peer);
        }
    }
}
