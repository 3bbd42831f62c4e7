//! A client that says what its plan says.

use crate::story::{Client, Finale};
use ringway_runtime::Time;
use ringway_runtime::sim::{Network, PeerId, Read};

/// How an actor saw its connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    Nothing,
    End,
    Broken,
}

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) peer: PeerId,
    /// What it says, all of it.
    pub(crate) stream: Vec<u8>,
    pub(crate) sent: usize,
    pub(crate) received: Vec<u8>,
    pub(crate) saw: Saw,
    pub(crate) saw_at: Option<Time>,
    pub(crate) connected_at: Time,
    /// When how many of its bytes had arrived.
    arrivals: Vec<(u64, Time)>,
    pub(crate) shut_at: Option<Time>,
    pub(crate) reset_at: Option<Time>,
    pub(crate) done: bool,
    pub(crate) wake_at: Option<Time>,
    /// Of the plan's pauses, the next one.
    pause: usize,
    pause_until: Time,
    finale_at: Option<Time>,
}

impl Actor {
    pub(crate) fn new(peer: PeerId, stream: Vec<u8>, now: Time) -> Self {
        Self {
            peer,
            stream,
            sent: 0,
            received: Vec::new(),
            saw: Saw::Nothing,
            saw_at: None,
            connected_at: now,
            arrivals: Vec::new(),
            shut_at: None,
            reset_at: None,
            done: false,
            wake_at: Some(now),
            pause: 0,
            pause_until: now,
            finale_at: None,
        }
    }

    /// When so many of its bytes had arrived at the other end.
    pub(crate) fn arrived(&self, bytes: usize) -> Option<Time> {
        if bytes == 0 {
            return Some(self.connected_at);
        }
        let arrival = self.arrivals.iter().find(|(count, _)| *count >= bytes as u64);
        arrival.map(|(_, at)| *at)
    }

    /// These two bytes have arrived together.
    pub(crate) fn arrived_together(&self, first: usize, second: usize) -> bool {
        let place = |bytes: usize| self.arrivals.iter().position(|(count, _)| *count >= bytes as u64);
        place(first).is_some() && place(first) == place(second)
    }

    pub(crate) fn poll(&mut self, plan: &Client, network: &Network) {
        self.wake_at = None;
        if self.done {
            return;
        }
        let now = network.now();
        let arrived = network.arrived(self.peer);
        if self.arrivals.last().map_or(0, |(count, _)| *count) < arrived {
            self.arrivals.push((arrived, now));
        }
        while self.saw == Saw::Nothing {
            match network.receive(self.peer, 1 << 16, &mut self.received) {
                Read::Bytes(_) => {}
                Read::Nothing => break,
                Read::End => (self.saw, self.saw_at) = (Saw::End, Some(now)),
                Read::Broken => (self.saw, self.saw_at) = (Saw::Broken, Some(now)),
            }
        }
        if self.saw == Saw::Broken || network.is_broken(self.peer) {
            self.saw = Saw::Broken;
            self.saw_at.get_or_insert(now);
            return self.close(network);
        }
        let limit = plan.limit.min(self.stream.len());
        if self.speak(plan, network, limit, now) {
            self.finish(plan, network, now);
        }
    }

    /// `true` when it has said everything.
    fn speak(&mut self, plan: &Client, network: &Network, limit: usize, now: Time) -> bool {
        loop {
            if now < self.pause_until {
                self.wake_at = Some(self.pause_until);
                return false;
            }
            if let Some(&(place, pause)) = plan.pauses.get(self.pause)
                && place <= self.sent
            {
                self.pause += 1;
                self.pause_until = now + pause;
                continue;
            }
            if self.sent >= limit {
                return true;
            }
            let gate = plan
                .story
                .gates
                .iter()
                .find(|(_, answers)| self.received.len() < *answers);
            let gate = gate.map_or(usize::MAX, |(place, _)| *place);
            let pause = plan.pauses.get(self.pause).map_or(usize::MAX, |(place, _)| *place);
            let until = limit.min(gate).min(pause);
            if until <= self.sent {
                // Waits for an answer, for ever if the other side has ended.
                return self.saw == Saw::End;
            }
            match network.send(self.peer, &self.stream[self.sent..until]) {
                Ok(0) => return false,
                Ok(n) => self.sent += n,
                // Reading tells how it ended.
                Err(_) => return false,
            }
        }
    }

    fn finish(&mut self, plan: &Client, network: &Network, now: Time) {
        let at = *self.finale_at.get_or_insert(now + plan.lingers);
        if now < at {
            self.wake_at = Some(at);
            return;
        }
        match plan.finale {
            Finale::Reset => {
                self.reset_at = Some(now);
                self.done = true;
                return network.reset(self.peer);
            }
            Finale::Fin => {
                if self.shut_at.is_none() && network.shutdown_write(self.peer).is_ok() {
                    self.shut_at = Some(now);
                }
            }
            Finale::Hold => {}
        }
        if self.saw == Saw::End {
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
