//! Scripted clients and backends: each sends a stream that names its sender, and checks every byte that it receives.

use crate::plan::{Finale, Script, Step};
use ringway_runtime::Time;
use ringway_runtime::sim::{Network, PeerId, Read};
use std::time::Duration;

/// Bytes sent in one go.
const SEND_MAX: usize = 16 * 1024;
/// The first bytes of a stream name its sender.
const NAME_LEN: u64 = 4;

/// Who an actor is: the n-th client, or the n-th connection that a backend accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Client(u16),
    Backend(u16),
}

impl Name {
    const fn key(self) -> u32 {
        match self {
            Self::Client(n) => 0x4300_0000 | n as u32,
            Self::Backend(n) => 0x4200_0000 | n as u32,
        }
    }

    fn from_key(key: u32) -> Option<Self> {
        let n = key as u16;
        [Self::Client(n), Self::Backend(n)]
            .into_iter()
            .find(|name| name.key() == key)
    }

    /// The byte at position `at` of this actor's stream.
    fn byte(self, at: u64) -> u8 {
        if at < NAME_LEN {
            return self.key().to_le_bytes()[at as usize];
        }
        let mixed = (at ^ u64::from(self.key()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    }
}

/// How an actor saw its connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    Nothing,
    End,
    Broken,
}

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) name: Name,
    pub(crate) peer: PeerId,
    pub(crate) script: Script,
    step: usize,
    /// Of the current `Step::Send`.
    rest: usize,
    /// Bytes that the network took.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    head: [u8; NAME_LEN as usize],
    /// Whose bytes these are, once enough of them have come.
    pub(crate) sender: Option<Name>,
    pub(crate) saw: Saw,
    /// Ended its direction in order.
    pub(crate) shut: bool,
    pub(crate) reset: bool,
    /// Closed although the other side had not ended.
    pub(crate) closed_early: bool,
    pub(crate) cut: bool,
    /// Does not read any more.
    pub(crate) is_deaf: bool,
    pub(crate) done: bool,
    /// When it first ended its direction, in whatever way.
    pub(crate) ended_at: Option<Time>,
    pub(crate) started_at: Time,
    /// When it was last polled while not done.
    pub(crate) active_at: Time,
    pause_until: Time,
    read_from: Time,
    /// When it wants to be polled again without news.
    pub(crate) wake_at: Option<Time>,
    buffer: Vec<u8>,
}

impl Actor {
    pub(crate) fn new(name: Name, peer: PeerId, script: Script, now: Time) -> Self {
        Self {
            name,
            peer,
            script,
            step: 0,
            rest: 0,
            sent: 0,
            received: 0,
            head: [0; 4],
            sender: None,
            saw: Saw::Nothing,
            shut: false,
            reset: false,
            closed_early: false,
            cut: false,
            is_deaf: false,
            done: false,
            ended_at: None,
            started_at: now,
            active_at: now,
            pause_until: now,
            read_from: now,
            wake_at: None,
            buffer: Vec::new(),
        }
    }

    /// Nothing more is to come from it or, if it is silent, to it.
    pub(crate) fn is_settled(&self) -> bool {
        self.done || self.is_deaf || (self.script.finale == Finale::Silent && self.saw != Saw::Nothing)
    }

    /// May have caused a reset on its own side, by asking for one or by closing early.
    pub(crate) fn may_reset(&self) -> bool {
        self.reset || self.closed_early
    }

    /// How long its script may take if nothing holds it up: pauses, and a slow reader's way through `bytes`.
    pub(crate) fn patience(&self, bytes: u64) -> Duration {
        let pauses = self.script.steps.iter().map(|step| match step {
            Step::Pause(pause) | Step::StopReading(pause) => *pause,
            Step::Send(_) | Step::AwaitReply => Duration::ZERO,
        });
        let reads = u32::try_from(bytes / self.script.read_max as u64 + 1).unwrap_or(u32::MAX);
        pauses.sum::<Duration>() + self.script.read_pause * reads
    }

    /// Does what can be done now. An error is a byte that should not have come.
    pub(crate) fn poll(&mut self, network: &Network) -> Result<(), String> {
        self.wake_at = None;
        if self.done || self.is_deaf {
            return Ok(());
        }
        let now = network.now();
        self.active_at = now;
        self.read(network, now)?;
        if self.saw == Saw::Broken {
            self.close(network);
            return Ok(());
        }
        if self.walk(network, now) {
            self.finish(network);
        }
        Ok(())
    }

    fn wake_at(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn read(&mut self, network: &Network, now: Time) -> Result<(), String> {
        while self.saw == Saw::Nothing {
            if now < self.read_from {
                self.wake_at(self.read_from);
                return Ok(());
            }
            self.buffer.clear();
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = network.receive(self.peer, self.script.read_max, &mut buffer);
            self.buffer = buffer;
            match read {
                Read::Nothing => return Ok(()),
                Read::End => self.saw = Saw::End,
                Read::Broken => self.saw = Saw::Broken,
                Read::Bytes(_) => {
                    self.check()?;
                    self.read_from = now + self.script.read_pause;
                }
            }
        }
        // Whoever has read the end may still learn of a reset.
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        for &byte in &self.buffer {
            let at = self.received;
            self.received += 1;
            if at < NAME_LEN {
                self.head[at as usize] = byte;
                if at + 1 == NAME_LEN {
                    let sender = Name::from_key(u32::from_le_bytes(self.head));
                    let wrong = || format!("{:?} received a stream that begins with {:02x?}", self.name, self.head);
                    self.sender = Some(sender.ok_or_else(wrong)?);
                }
            } else if let Some(sender) = self.sender
                && sender.byte(at) != byte
            {
                return Err(format!(
                    "{:?}: byte {at} from {sender:?} is {byte:#04x} instead of {:#04x}",
                    self.name,
                    sender.byte(at)
                ));
            }
        }
        Ok(())
    }

    /// Goes through the steps; `true` when they are over.
    fn walk(&mut self, network: &Network, now: Time) -> bool {
        loop {
            if now < self.pause_until {
                self.wake_at(self.pause_until);
                return false;
            }
            if self.rest > 0 && !self.send(network) {
                return false;
            }
            if self.script.replies && self.sent < self.received {
                self.rest = (self.received - self.sent) as usize;
                continue;
            }
            let Some(step) = self.script.steps.get(self.step).copied() else {
                return true;
            };
            match step {
                Step::Send(n) => self.rest = n,
                Step::Pause(pause) => self.pause_until = now + pause,
                Step::StopReading(pause) => self.read_from = now + pause,
                Step::AwaitReply if self.received < self.sent && self.saw == Saw::Nothing => return false,
                Step::AwaitReply => {}
            }
            self.step += 1;
        }
    }

    /// `true` when the current step's bytes are with the network, or never will be.
    fn send(&mut self, network: &Network) -> bool {
        while self.rest > 0 {
            let len = self.rest.min(SEND_MAX) as u64;
            self.buffer.clear();
            self.buffer
                .extend((self.sent..self.sent + len).map(|at| self.name.byte(at)));
            match network.send(self.peer, &self.buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.sent += n as u64;
                    self.rest -= n;
                }
                Err(_) => {
                    // What has arrived can still be read; then reading tells that it is broken.
                    self.rest = 0;
                    self.step = self.script.steps.len();
                    self.script.replies = false;
                }
            }
        }
        true
    }

    fn finish(&mut self, network: &Network) {
        self.end(network);
        match self.script.finale {
            Finale::Orderly => {
                self.shut(network);
                if self.saw == Saw::End {
                    self.close(network);
                }
            }
            Finale::AfterOther if self.saw == Saw::End => {
                self.shut(network);
                self.close(network);
            }
            Finale::AfterOther => {}
            Finale::Silent => {}
            Finale::Deaf => self.is_deaf = true,
            Finale::Reset => {
                self.reset = true;
                self.done = true;
                network.reset(self.peer);
            }
            Finale::Close => {
                self.shut = true;
                self.close(network);
            }
            Finale::Cut => {
                self.cut = true;
                self.done = true;
                network.cut(self.peer);
            }
        }
    }

    /// Notes that the script's finale ends its direction, if it does.
    fn end(&mut self, network: &Network) {
        let ends = match self.script.finale {
            Finale::Orderly | Finale::Reset | Finale::Close | Finale::Cut => true,
            Finale::AfterOther => self.saw == Saw::End,
            Finale::Silent | Finale::Deaf => false,
        };
        if ends {
            self.ended_at.get_or_insert(network.now());
        }
    }

    fn shut(&mut self, network: &Network) {
        if !self.shut && network.shutdown_write(self.peer).is_ok() {
            self.shut = true;
        }
    }

    /// For those that nobody needs any more, and at the end of the world.
    pub(crate) fn close(&mut self, network: &Network) {
        if !self.done {
            self.ended_at.get_or_insert(network.now());
            self.closed_early = self.saw == Saw::Nothing;
            self.done = true;
            network.close(self.peer);
        }
    }

    /// What it was doing, for a report.
    pub(crate) fn describe(&self, now: Time) -> String {
        format!(
            "{:?} since {:?}: sent {}, received {} from {:?}, saw {:?}, shut {}, reset {}, closed early {}, cut {}, \
             done {}, step {} of {:?}, then {:?}",
            self.name,
            now.since(self.started_at),
            self.sent,
            self.received,
            self.sender,
            self.saw,
            self.shut,
            self.reset,
            self.closed_early,
            self.cut,
            self.done,
            self.step,
            self.script.steps,
            self.script.finale
        )
    }
}
