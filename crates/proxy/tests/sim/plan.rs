//! What happens in one simulated world, drawn from its seed before anything runs.

use crate::control::Control;
use ringway_core::model::{
    self, Backend, Balance, Buffers, Keepalive, Listener, Model, Pool, PoolIndex, Sessions, Target, Workers,
};
use ringway_runtime::sim::{Chances, Random, Welcome};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(6);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(4);
const KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(4),
    interval: Duration::from_secs(1),
    count: 3,
};
/// Nobody who is well pauses longer than this: far below every limit above.
const PAUSE_MAX: Duration = Duration::from_millis(700);

/// One thing that an actor does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Send(usize),
    Pause(Duration),
    /// Leaves what arrives in the kernel for so long; goes on with the next step meanwhile.
    StopReading(Duration),
    /// Until as many bytes were received as sent, or the other side has ended.
    AwaitReply,
}

/// What an actor does when its steps are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finale {
    /// Ends its direction, and closes when the other has ended.
    Orderly,
    /// Ends its direction when the other has ended.
    AfterOther,
    Reset,
    /// Closes without looking what else comes.
    Close,
    /// Does nothing any more, but reads.
    Silent,
    /// Does nothing any more, and does not even read; its kernel acknowledges what fits.
    Deaf,
    /// Its line is cut.
    Cut,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) finale: Finale,
    /// Bytes read at a time.
    pub(crate) read_max: usize,
    /// Between two reads.
    pub(crate) read_pause: Duration,
    /// Sends as many bytes as it receives.
    pub(crate) replies: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: Duration,
    pub(crate) source: SocketAddr,
    pub(crate) script: Script,
}

/// How the connections to a backend are met: per thousand, the rest is accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Temper {
    pub(crate) refuse: u16,
    pub(crate) silence: u16,
    pub(crate) unreachable: u16,
    pub(crate) reset: u16,
    pub(crate) late: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) buffers: Buffers,
    pub(crate) chances: Chances,
    pub(crate) tries: u8,
    pub(crate) tempers: Vec<Temper>,
    pub(crate) clients: Vec<Client>,
    /// How likely backends misbehave.
    pub(crate) backend_trouble: u16,
    /// Backends answer every byte; clients wait for answers.
    pub(crate) dialogue: bool,
    pub(crate) connections_max: u32,
    pub(crate) listener_max: Option<u32>,
    pub(crate) descriptors_max: Option<usize>,
    pub(crate) stop_at: Option<Duration>,
    pub(crate) reset_at: Option<Duration>,
    /// How often a worker misses its turn, per thousand.
    pub(crate) lazy: u16,
    /// Sizes that scripts use at most.
    pub(crate) size_max: usize,
    pub(crate) control: Control,
}

pub(crate) fn listener_address() -> model::Address {
    model::Address::Inet(([192, 0, 2, 1], 5432).into())
}

pub(crate) fn backend_address(n: usize) -> model::Address {
    model::Address::Inet(([198, 51, 100, n as u8 + 1], 5432).into())
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x706c_616e);
        let chances = Chances::drawn(random);
        let trouble = [0, 0, 100, 300, 800][random.below(5) as usize];
        let dialogue = random.chance(300);
        // Large ones are rare: they take time, and small buffers make small sizes large enough.
        let size_max = [100, 5_000, 60_000, 60_000, 800_000][random.below(5) as usize];
        let clients = if random.chance(300) { 1 } else { random.between(2, 10) };
        let stop_at = random.chance(200).then(|| Duration::from_millis(random.below(1_500)));
        let reset_at = stop_at.filter(|_| random.chance(500));
        let reset_at = reset_at.map(|stop| stop + Duration::from_millis(random.below(1_500)));
        let clients = (0..clients)
            .map(|_| Client::drawn(random, trouble, dialogue, size_max))
            .collect();
        let tempers: Vec<Temper> = (0..random.between(1, 3)).map(|_| Temper::drawn(random)).collect();
        let workers = random.between(1, 3) as usize;
        let buffers = buffers(random);
        let balance = [Balance::RoundRobin, Balance::LeastConnections, Balance::IpHash][random.below(3) as usize];
        let mut plan = Self {
            seed,
            workers,
            buffers,
            chances,
            control: Control::absent(balance, tempers.len()),
            tries: random.between(1, 3) as u8,
            tempers,
            clients,
            backend_trouble: trouble,
            dialogue,
            connections_max: if random.chance(300) {
                random.between(1, 6) as u32
            } else {
                100_000
            },
            listener_max: random.chance(200).then(|| random.between(1, 6) as u32),
            descriptors_max: random.chance(100).then(|| random.size(8, 20)),
            stop_at,
            reset_at,
            lazy: if random.chance(500) {
                0
            } else {
                random.below(500) as u16
            },
            size_max,
        };
        if random.chance(50) {
            plan.crowd(random);
            plan.control = Control::absent(balance, plan.tempers.len());
        } else {
            plan.control = Control::drawn(seed, balance, &mut plan.tempers);
        }
        plan
    }

    /// Clients that do not read keep all the buffers that they can, and others want some.
    fn crowd(&mut self, random: &mut Random) {
        self.workers = 1;
        self.buffers = Buffers { count: 16, size: 1024 };
        self.chances.send_buffer = (1_024, 2_048);
        self.chances.receive_buffer = (1_024, 2_048);
        self.tempers = vec![Temper::default()];
        self.backend_trouble = 0;
        self.dialogue = false;
        self.size_max = 30_000;
        self.connections_max = 100_000;
        self.listener_max = None;
        self.descriptors_max = None;
        self.stop_at = None;
        self.reset_at = None;
        let deaf = random.between(3, 6);
        let well = random.between(1, 3);
        self.clients = (0..deaf + well)
            .map(|n| {
                let mut client = Client::drawn(random, 0, false, self.size_max);
                if n < deaf {
                    client.script.steps.clear();
                    client.script.finale = Finale::Deaf;
                    client.at /= 8;
                }
                client
            })
            .collect();
    }

    pub(crate) fn model(&self) -> Model {
        let listener = Listener {
            idle_timeout: IDLE_TIMEOUT,
            half_closed_timeout: HALF_CLOSED_TIMEOUT,
            keepalive: KEEPALIVE,
            dead_peer_timeout: DEAD_PEER_TIMEOUT,
            max_connections: self.listener_max,
            ..Listener::new("listener", listener_address(), PoolIndex(0))
        };
        let backend = |n| Backend {
            weight: self.control.weights[n],
            max_connections: self.control.connections_max[n],
            ..Backend::new(Target::Address(backend_address(n)), &format!("backend-{n}"))
        };
        let pool = Pool {
            balance: self.control.balance,
            hash: self.control.hash,
            connect_timeout: CONNECT_TIMEOUT,
            tries: self.tries,
            keepalive: KEEPALIVE,
            dead_peer_timeout: DEAD_PEER_TIMEOUT,
            queue: self.control.queue,
            sessions: Sessions {
                max_lifetime: self.control.max_lifetime,
                ..Sessions::default()
            },
            ..Pool::new("pool", (0..self.tempers.len()).map(backend).collect())
        };
        Model {
            workers: Workers::Count(self.workers as u16),
            buffers: self.buffers,
            drain_timeout: Duration::from_secs(30),
            ..Model::new(vec![listener], vec![pool])
        }
    }

    /// Some connection to a backend may fail to be made, through whose fault ever.
    pub(crate) fn may_fail_to_connect(&self) -> bool {
        self.tempers.iter().any(|temper| temper.may_fail() || temper.reset > 0) || self.may_lack()
    }

    /// Some connection to a backend may fail for a reason of this machine.
    pub(crate) const fn may_lack(&self) -> bool {
        self.descriptors_max.is_some() || self.chances.open_exhausted > 0 || self.chances.connect_local > 0
    }

    /// What a backend does with one connection.
    pub(crate) fn backend_script(&self, random: &mut Random) -> Script {
        let mut script = Script::drawn(random, self.backend_trouble, self.dialogue, self.size_max);
        if self.dialogue {
            script.replies = true;
            script.steps.retain(|step| !matches!(step, Step::AwaitReply));
            if script.finale == Finale::Orderly {
                // Whoever answers cannot end before it was asked everything.
                script.finale = Finale::AfterOther;
            }
        }
        script
    }
}

fn buffers(random: &mut Random) -> Buffers {
    let (count, size) = [
        (16, 1024),
        (16, 1024),
        (32, 1024),
        (16, 4096),
        (64, 2048),
        (256, 16_384),
    ][random.below(6) as usize];
    Buffers { count, size }
}

impl Client {
    fn drawn(random: &mut Random, trouble: u16, dialogue: bool, size_max: usize) -> Self {
        Self {
            at: Duration::from_micros(random.below(800_000)),
            source: (
                [10, 0, random.below(3) as u8, random.below(250) as u8],
                random.between(1024, 65_000) as u16,
            )
                .into(),
            script: Script::drawn(random, trouble, dialogue, size_max),
        }
    }
}

impl Script {
    fn drawn(random: &mut Random, trouble: u16, dialogue: bool, size_max: usize) -> Self {
        let finale = if random.chance(trouble) {
            [
                Finale::Reset,
                Finale::Reset,
                Finale::Close,
                Finale::Silent,
                Finale::Deaf,
                Finale::Cut,
            ][random.below(6) as usize]
        } else if !dialogue && random.chance(200) {
            Finale::AfterOther
        } else {
            Finale::Orderly
        };
        let mut steps = Vec::new();
        for _ in 0..random.below(6) {
            steps.push(match random.below(10) {
                0..=5 => Step::Send(size(random, size_max)),
                6 | 7 => Step::Pause(pause(random)),
                8 => Step::StopReading(pause(random)),
                _ if dialogue => Step::AwaitReply,
                _ => Step::Send(1),
            });
        }
        let slow = random.chance(200);
        Self {
            steps,
            finale,
            // Slow, but a script's bytes are read within some seconds.
            read_max: if slow {
                random.size(1 + size_max / 500, 4_000)
            } else {
                random.size(64, 65_536)
            },
            read_pause: if slow {
                Duration::from_micros(random.below(1_000))
            } else {
                Duration::ZERO
            },
            replies: false,
        }
    }
}

/// All magnitudes up to `max` are equally likely.
fn size(random: &mut Random, max: usize) -> usize {
    let bits = random.between(0, u64::from(max.ilog2()));
    random.size(1, (2 << bits).min(max))
}

fn pause(random: &mut Random) -> Duration {
    let shorter = random.below(8);
    Duration::from_micros(random.below(PAUSE_MAX.as_micros() as u64 >> shorter))
}

impl Temper {
    pub(crate) fn drawn(random: &mut Random) -> Self {
        if random.chance(700) {
            return Self::default();
        }
        let mut often = || {
            if random.chance(600) {
                0
            } else {
                random.below(500) as u16
            }
        };
        Self {
            refuse: often(),
            silence: often(),
            unreachable: often(),
            reset: often(),
            late: often(),
        }
    }

    pub(crate) fn welcome(&self, random: &mut Random) -> Welcome {
        if random.chance(self.refuse) {
            Welcome::Refuse
        } else if random.chance(self.silence) {
            Welcome::Silence
        } else if random.chance(self.unreachable) {
            Welcome::Unreachable
        } else if random.chance(self.reset) {
            Welcome::Reset
        } else if random.chance(self.late) {
            Welcome::Late(Duration::from_millis(random.below(1_500)))
        } else {
            Welcome::Accept
        }
    }

    /// Some connection may fail to be made.
    pub(crate) fn may_fail(&self) -> bool {
        self.refuse > 0 || self.silence > 0 || self.unreachable > 0 || self.late > 0
    }
}
