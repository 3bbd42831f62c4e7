//! What happens in one world, drawn from its seed before anything runs.

use crate::story::{Client, crowd, size};
use ringway_core::access::{Access, Network as Range, NetworkSet};
use ringway_core::model::{
    self, Backend, Buffers, Listener, Model, Pool, PoolIndex, Preface, Protocol, ProxyProtocol, ProxyVersion,
    SendProxy, StartTls, Tls, Workers,
};
use ringway_core::route::{Names, Routes};
use ringway_core::session::ClientLimits;
use ringway_runtime::sim::{Chances, Random, Welcome};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The longest hello that is taken.
pub(crate) const HELLO_MAX: u32 = 1_024;
/// The pool of listeners without routes, and of those with a fallback.
pub(crate) const OTHERS: usize = 2;
/// Whoever is below may not connect.
pub(crate) const DENIED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 6, 6, 6));
/// Begins the names of connections.
pub(crate) const ID_SEED: u64 = 0x5eed_0000_0000_0001;

/// What is spoken on the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Any,
    Tls,
    StartTls,
    Postgres,
}

/// What a server says to an SSLRequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    Nothing,
    /// Yes, and at once what can only come later.
    More,
    Close,
}

/// How a backend is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temper {
    pub(crate) welcome: Welcome,
    pub(crate) answer: Answer,
    /// Before the answer.
    pub(crate) thinks: Duration,
    /// Resets its connections after so many bytes.
    pub(crate) resets: Option<usize>,
    /// Bytes that it says.
    pub(crate) talks: usize,
    /// It says them before it was asked, where that is possible.
    pub(crate) first: bool,
    /// Bytes of a piece at most.
    pub(crate) piece: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct PoolPlan {
    pub(crate) send: Option<SendProxy>,
    pub(crate) tries: u8,
    pub(crate) connections_max: Option<u32>,
    pub(crate) backends: Vec<Temper>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) buffers: Buffers,
    pub(crate) chances: Chances,
    /// How often a worker misses its turn, per thousand.
    pub(crate) lazy: u16,
    pub(crate) speech: Speech,
    /// A balancer in front says who the client is.
    pub(crate) proxied: bool,
    pub(crate) denies: bool,
    pub(crate) fallback: bool,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) unrouted_max: u32,
    /// Nobody says anything, and there are too many.
    pub(crate) crowded: bool,
    pub(crate) client_max: Option<u32>,
    /// A pool where nobody answers, to which many go.
    pub(crate) silent: Option<usize>,
    pub(crate) pools: Vec<PoolPlan>,
    pub(crate) clients: Vec<Client>,
    /// Everything that is left is reset then.
    pub(crate) reset_at: Option<Duration>,
    /// Sessions are logged.
    pub(crate) logs: bool,
}

pub(crate) fn front() -> SocketAddr {
    ([192, 0, 2, 1], 443).into()
}

pub(crate) fn backend_address(pool: usize, n: usize) -> SocketAddr {
    ([198, 51, 100 + pool as u8, n as u8 + 1], 5432).into()
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x726f_7574_696e_6721);
        let speech = [Speech::Any, Speech::Tls, Speech::StartTls, Speech::Postgres][random.below(4) as usize];
        let timeout = Duration::from_millis(random.between(400, 2_000));
        let connect_timeout = Duration::from_millis(random.between(300, 1_000));
        let mut plan = Self {
            seed,
            workers: random.between(1, 2) as usize,
            buffers: Buffers {
                count: [16, 16, 32][random.below(3) as usize],
                size: [1_024, 1_024, 4_096][random.below(3) as usize],
            },
            chances: chances(random, speech),
            lazy: [0, 0, 100, 400][random.below(4) as usize],
            speech,
            proxied: random.chance(if speech == Speech::Any { 800 } else { 400 }),
            denies: random.chance(200),
            fallback: random.chance(500),
            timeout,
            connect_timeout,
            unrouted_max: 1_000,
            crowded: false,
            client_max: random.chance(200).then(|| random.between(1, 3) as u32),
            silent: None,
            pools: (0..=OTHERS)
                .map(|_| PoolPlan::drawn(random, speech, connect_timeout))
                .collect(),
            clients: Vec::new(),
            reset_at: random
                .chance(80)
                .then(|| Duration::from_millis(random.between(100, 1_500))),
            logs: random.chance(900),
        };
        if speech == Speech::Any {
            // Nothing is awaited without a header.
            plan.fallback = true;
        }
        if random.chance(250) && plan.reads() {
            plan.unrouted_max = random.between(1, 4) as u32;
            plan.crowded = random.chance(400);
        }
        let mut count = random.between(1, 9) as usize;
        if !plan.crowded && random.chance(40) {
            // Many go where nobody answers.
            count = random.size(20, 36);
            plan.flood(random);
        }
        plan.clients = if plan.crowded {
            (plan.client_max, plan.denies, plan.reset_at) = (None, false, None);
            crowd(random, &plan)
        } else {
            let mut clients = Vec::new();
            for n in 0..count {
                let mut client = Client::drawn(random, &plan, n, &clients);
                if plan.silent.is_some() && n % 4 > 0 {
                    client.rush(random, &plan, n);
                }
                clients.push(client);
            }
            clients
        };
        plan
    }

    /// Those who go to one of the pools wait there for long, with all the buffers if they may keep them.
    fn flood(&mut self, random: &mut Random) {
        let by_name = matches!(self.speech, Speech::Tls | Speech::StartTls);
        let silent = if by_name { 0 } else { OTHERS };
        for temper in &mut self.pools[silent].backends {
            temper.welcome = Welcome::Silence;
        }
        self.silent = Some(silent);
        self.pools[silent].connections_max = None;
        self.connect_timeout = self.connect_timeout.max(self.timeout.mul_f64(1.5));
        self.workers = 1;
        self.buffers.count = 16;
        self.chances.latency_max = Duration::from_micros(random.below(500));
        self.reset_at = None;
    }

    /// Something is read before it is known where a connection goes.
    pub(crate) fn reads(&self) -> bool {
        self.proxied || self.speech != Speech::Any
    }

    pub(crate) fn model(&self) -> Model {
        let all = |address: IpAddr, prefix| Range::containing(address, prefix).into_iter().collect::<NetworkSet>();
        let proxy = self.proxied.then(|| ProxyProtocol {
            v1: true,
            v2: true,
            from: all(IpAddr::from([10, 0, 0, 0]), 8),
            each_datagram: false,
        });
        let tls = Tls {
            routes: routes(),
            hello_max: HELLO_MAX,
            starttls: (self.speech == Speech::StartTls).then_some(StartTls::Postgres),
        };
        let speech = match self.speech {
            Speech::Any => model::Speech::Any,
            Speech::Postgres => model::Speech::Postgres,
            Speech::Tls | Speech::StartTls => model::Speech::Tls(tls),
        };
        let by_name = matches!(self.speech, Speech::Tls | Speech::StartTls);
        let mut listener = Listener {
            protocol: if by_name { Protocol::Tls } else { Protocol::Tcp },
            preface: Preface { proxy, speech },
            routing_timeout: self.timeout,
            clients: ClientLimits {
                sessions: self.client_max,
                ..ClientLimits::default()
            },
            ..Listener::new("listener", model::Address::Inet(front()), PoolIndex(OTHERS))
        };
        if by_name && !self.fallback {
            listener.pool = None;
        }
        if self.denies {
            listener.access = Access {
                allow: None,
                deny: all(DENIED, 24),
            };
        }
        Model {
            workers: Workers::Count(self.workers as u16),
            buffers: self.buffers,
            max_unrouted: Some(self.unrouted_max),
            ..Model::new(
                vec![listener],
                self.pools
                    .iter()
                    .enumerate()
                    .map(|(n, pool)| self.pool(n, pool))
                    .collect(),
            )
        }
    }

    fn pool(&self, n: usize, plan: &PoolPlan) -> Pool {
        let backend = |k| Backend {
            max_connections: plan.connections_max,
            ..Backend::at(model::Address::Inet(backend_address(n, k)))
        };
        Pool {
            connect_timeout: self.connect_timeout,
            tries: plan.tries,
            send_proxy: plan.send,
            ..Pool::new(&format!("pool-{n}"), (0..plan.backends.len()).map(backend).collect())
        }
    }
}

/// `a.test` goes to the first pool, names below `b.test` and `acme` without a name to the second.
fn routes() -> Routes {
    let mut routes = Routes::default();
    routes.add(&Names::Exact("a.test".into()), None, PoolIndex(0));
    routes.add(&Names::Below("b.test".into()), None, PoolIndex(1));
    routes.add(&Names::All, Some(b"acme"), PoolIndex(1));
    routes
}

fn chances(random: &mut Random, speech: Speech) -> Chances {
    let mut chances = if random.chance(200) {
        Chances::CALM
    } else {
        Chances::drawn(random)
    };
    // What becomes of those is the other simulation's matter.
    chances.accept_exhausted = 0;
    chances.open_exhausted = 0;
    chances.connect_local = 0;
    if speech == Speech::StartTls {
        // A socket that has sent nothing has room for a few bytes.
        chances.full_send = 0;
        chances.partial_send = 0;
    }
    chances
}

impl PoolPlan {
    fn drawn(random: &mut Random, speech: Speech, connect_timeout: Duration) -> Self {
        let troubled = random.chance(300);
        let version = [ProxyVersion::V1, ProxyVersion::V2, ProxyVersion::V2][random.below(3) as usize];
        let binary = version == ProxyVersion::V2;
        let send = SendProxy {
            version,
            authority: binary && random.chance(500),
            alpn: binary && random.chance(500),
            unique_id: binary && random.chance(500),
            checksum: binary && random.chance(500),
            each_datagram: false,
        };
        Self {
            send: random.chance(600).then_some(send),
            tries: random.between(1, 2) as u8,
            connections_max: (speech == Speech::Postgres && random.chance(300)).then_some(1),
            backends: (0..random.between(1, 3))
                .map(|_| Temper::drawn(random, troubled, connect_timeout))
                .collect(),
        }
    }
}

impl Temper {
    fn drawn(random: &mut Random, troubled: bool, connect_timeout: Duration) -> Self {
        let part = |random: &mut Random| connect_timeout.mul_f64(random.below(40) as f64 / 100.0);
        let mut temper = Self {
            welcome: if random.chance(300) {
                Welcome::Late(part(random))
            } else {
                Welcome::Accept
            },
            answer: Answer::Yes,
            thinks: if random.chance(300) {
                part(random)
            } else {
                Duration::ZERO
            },
            resets: None,
            talks: size(random, 15),
            first: random.chance(500),
            piece: if random.chance(500) {
                100_000
            } else {
                random.size(1, 60)
            },
        };
        if temper.piece < 100 {
            temper.talks = temper.talks.min(1_500);
        }
        if troubled {
            match random.below(10) {
                0 | 1 => temper.welcome = Welcome::Refuse,
                2 => temper.welcome = Welcome::Silence,
                3 => temper.answer = Answer::No,
                4 => temper.answer = Answer::Nothing,
                5 => temper.answer = Answer::More,
                6 => temper.answer = Answer::Close,
                7 => temper.resets = Some(random.below(600) as usize),
                _ => {}
            }
        }
        temper
    }

    /// It can be connected to.
    pub(crate) const fn is_there(&self) -> bool {
        matches!(self.welcome, Welcome::Accept | Welcome::Late(_))
    }
}
