//! What a client says, and what has to become of it: both are drawn together, by hand-written rules.

use crate::forge::{self, GSSENC_REQUEST, Header, SSL_REQUEST};
use crate::plan::{DENIED, HELLO_MAX, OTHERS, Plan, Speech};
use ringway_core::reason::EndReason;
use ringway_runtime::sim::Random;
use std::net::SocketAddr;
use std::time::Duration;

/// What has to become of a connection whose first bytes have come whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To a backend of this pool, which is asked for TLS before if it `greets`.
    Pool {
        pool: usize,
        greets: bool,
        name: Option<&'static str>,
        alpn: Option<&'static str>,
    },
    Reject(EndReason),
    /// A CancelRequest that goes to every backend.
    CancelAll,
    /// A CancelRequest with the key that this client has been given.
    Cancel(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finale {
    /// Ends its direction.
    Fin,
    /// Waits for the other end.
    Hold,
    Reset,
}

/// The first bytes of a client.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) bytes: Vec<u8>,
    /// What is to be received before it goes on: position in `bytes`, and bytes received by then.
    pub(crate) gates: Vec<(usize, usize)>,
    /// What Ringway itself answers.
    pub(crate) ours: Vec<u8>,
    /// Bytes that are not passed on.
    pub(crate) skip: usize,
    /// With fewer bytes there can be no verdict.
    pub(crate) from: usize,
    /// With as many there must be one.
    pub(crate) needs: usize,
    pub(crate) verdict: Verdict,
    /// Said at once what must wait for an answer: that is refused unless the network took it apart there.
    pub(crate) eager: Option<usize>,
    /// Whom a PROXY header names, and whom that one spoke to.
    pub(crate) named: Option<(SocketAddr, SocketAddr)>,
    /// Bytes of the PROXY header.
    pub(crate) header: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: Duration,
    pub(crate) source: SocketAddr,
    pub(crate) story: Story,
    /// Everything it says: the story's bytes and more. Of a CancelRequest with another's key, what comes before it.
    pub(crate) stream: Vec<u8>,
    /// Says no more than so many bytes of it.
    pub(crate) limit: usize,
    /// Pauses before positions of the stream, in order.
    pub(crate) pauses: Vec<(usize, Duration)>,
    pub(crate) finale: Finale,
    /// Before the finale.
    pub(crate) lingers: Duration,
}

/// The byte at position `at` of what a client says behind its first bytes. The first one tells clients apart.
pub(crate) fn payload(n: usize, at: usize) -> u8 {
    if at == 0 {
        0x80 | n as u8
    } else {
        (at * 31 + n * 7) as u8
    }
}

/// All magnitudes below 2 to the power of `bits` are equally likely.
pub(crate) fn size(random: &mut Random, bits: u64) -> usize {
    let bits = random.below(bits + 1);
    random.size(0, (1 << bits) - 1)
}

impl Story {
    pub(crate) const fn empty(verdict: Verdict) -> Self {
        Self {
            bytes: Vec::new(),
            gates: Vec::new(),
            ours: Vec::new(),
            skip: 0,
            from: 0,
            needs: 0,
            verdict,
            eager: None,
            named: None,
            header: 0,
        }
    }

    fn drawn(random: &mut Random, plan: &Plan, n: usize, source: SocketAddr) -> Self {
        let mut story = Self::empty(to(OTHERS, false));
        if plan.proxied && !story.add_header(random, plan, n) {
            return story;
        }
        let client = story.named.map_or(source.ip(), |(source, _)| source.ip());
        if plan.proxied && plan.denies && client == DENIED {
            // It is known who it is as soon as the header has come.
            (story.from, story.needs) = (story.header, story.header);
            story.verdict = Verdict::Reject(EndReason::Refused);
        }
        let denied = (story.verdict == Verdict::Reject(EndReason::Refused)).then(|| story.clone());
        match plan.speech {
            Speech::Any => {
                story.from = story.bytes.len();
                story.needs = story.from;
            }
            Speech::Tls => story.add_hello(random, plan, n, false),
            Speech::StartTls => story.add_start_tls(random, plan, n),
            Speech::Postgres => story.add_postgres(random, n),
        }
        if let Some(denied) = denied {
            story = Self {
                bytes: story.bytes,
                ..denied
            };
        }
        story
    }

    fn reject(&mut self, bytes: &[u8], from: usize, reason: EndReason) {
        self.from = self.bytes.len() + from;
        self.bytes.extend_from_slice(bytes);
        self.needs = self.bytes.len();
        self.verdict = Verdict::Reject(reason);
    }

    fn decide(&mut self, bytes: &[u8], verdict: Verdict) {
        self.bytes.extend_from_slice(bytes);
        (self.from, self.needs) = (self.bytes.len(), self.bytes.len());
        self.verdict = verdict;
    }

    /// `false`: it is broken.
    fn add_header(&mut self, random: &mut Random, plan: &Plan, n: usize) -> bool {
        if random.chance(120) {
            let mut bad = Header::plain(2, None).bytes();
            let (bytes, from): (Vec<u8>, usize) = match random.below(4) {
                0 => (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1),
                // Longer than the longest line, 107 bytes.
                1 => ([&b"PROXY TCP4 "[..], &[b'1'; 120]].concat(), 11),
                2 => {
                    bad[12] = 0x31;
                    (bad, 13)
                }
                _ => (forge::hello(Some("a.test"), None, 0, n as u8, 16_000), 1),
            };
            self.reject(&bytes, from, EndReason::BadProxyHeader);
            return false;
        }
        let host = if plan.client_max.is_some() { 1 + n % 2 } else { n + 1 } as u16;
        let four: (SocketAddr, SocketAddr) = (
            ([203, 0, 113, host as u8], 2_000 + n as u16).into(),
            ([198, 18, 0, 1], 443).into(),
        );
        let six: (SocketAddr, SocketAddr) = (
            ([0x2001, 0xdb8, host, 0, 0, 0, 0, 1], 2_000 + n as u16).into(),
            ([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2], 443).into(),
        );
        let version = random.between(1, 2) as u8;
        let mut header = Header::plain(version, Some(if random.chance(300) { six } else { four }));
        if random.chance(200) {
            header.addresses = None;
            header.local = random.chance(500);
        } else if plan.denies && random.chance(300) {
            header.addresses = Some((SocketAddr::new(DENIED, 2_000 + n as u16), four.1));
        }
        if version == 2 && random.chance(400) {
            header.authority = Some("of.the.balancer".into());
            header.id = Some(vec![7; size(random, 7)]);
            header.checksum = random.chance(500);
        }
        self.bytes = header.bytes();
        self.named = header.addresses;
        self.header = self.bytes.len();
        self.skip = self.header;
        true
    }

    fn add_hello(&mut self, random: &mut Random, plan: &Plan, n: usize, greets: bool) {
        let padding = size(random, 9);
        let record_max = if random.chance(700) {
            16_000
        } else {
            random.size(90, 400)
        };
        let hello = |name, alpn, padding| forge::hello(name, alpn, padding, n as u8, record_max);
        if random.chance(150) {
            let mut bytes = hello(Some("a.test"), None, 0);
            let (from, reason) = match random.below(4) {
                0 => {
                    bytes = b"GET / HTTP/1.1\r\n\r\n".to_vec();
                    (1, EndReason::BadHello)
                }
                1 => {
                    // A ServerHello.
                    bytes[5] = 2;
                    (6, EndReason::BadHello)
                }
                2 => {
                    bytes = hello(Some("a.test"), None, HELLO_MAX as usize);
                    (6, EndReason::HelloTooLarge)
                }
                _ => {
                    // The length of all extensions, behind header (9), version (2), random (32), session (1), suites (4)
                    // and compression (2), says one byte more than there is.
                    bytes = forge::hello(Some("a.test"), None, 0, n as u8, 16_000);
                    bytes[51] += 1;
                    (9, EndReason::BadHello)
                }
            };
            return self.reject(&bytes, from, reason);
        }
        let acme = Some("acme");
        let (said, name, alpn, route) = [
            (Some("a.test"), Some("a.test"), None, Some(0)),
            (Some("A.Test"), Some("a.test"), Some("h2"), Some(0)),
            (Some("x.y.b.test"), Some("x.y.b.test"), None, Some(1)),
            (Some("b.test"), Some("b.test"), None, None),
            (Some("other.test"), Some("other.test"), Some("h2"), None),
            (Some("other.test"), Some("other.test"), acme, Some(1)),
            (None, None, acme, Some(1)),
            (None, None, None, None),
        ][random.below(8) as usize];
        let verdict = match route.or(plan.fallback.then_some(OTHERS)) {
            Some(pool) => Verdict::Pool {
                pool,
                greets,
                name,
                alpn,
            },
            None => Verdict::Reject(EndReason::NoRoute),
        };
        self.decide(&hello(said, alpn, padding), verdict);
    }

    fn add_start_tls(&mut self, random: &mut Random, plan: &Plan, n: usize) {
        match random.below(10) {
            0 => {
                let start = self.bytes.len();
                self.add_hello(random, plan, n, false);
                // Not even the beginning of a hello.
                if self.bytes[start] != 0x16 {
                    self.verdict = Verdict::Reject(EndReason::BadStartup);
                }
            }
            1 => {
                let verdict = if plan.fallback {
                    to(OTHERS, false)
                } else {
                    Verdict::Reject(EndReason::NoRoute)
                };
                self.decide(&forge::startup(&user(n)), verdict);
            }
            2 => self.decide(&forge::cancel_request(n as u32, b"four"), Verdict::CancelAll),
            3 => self.add_broken_startup(random),
            more => {
                if more == 4 {
                    self.ask(&GSSENC_REQUEST, b"N");
                }
                let eager = random.chance(150);
                self.ask(&SSL_REQUEST, b"S");
                self.skip = self.bytes.len();
                if eager {
                    self.gates.pop();
                    self.eager = Some(self.bytes.len());
                }
                self.add_hello(random, plan, n, true);
            }
        }
    }

    /// Sends a request, which Ringway answers.
    fn ask(&mut self, request: &[u8], answer: &[u8]) {
        self.bytes.extend_from_slice(request);
        self.ours.extend_from_slice(answer);
        self.gates.push((self.bytes.len(), self.ours.len()));
    }

    fn add_broken_startup(&mut self, random: &mut Random) {
        let bytes: &[u8] = match random.below(4) {
            0 => b"GET / HTTP/1.1\r\n\r\n",
            // A length that cannot hold a version.
            1 => &[0, 0, 0, 7, 0, 3, 0, 0],
            // Protocol 2.0, which ended with PostgreSQL 14.
            2 => &[0, 0, 0, 9, 0, 2, 0, 0, 0],
            // Longer than a server takes.
            _ => &[0, 0, 0x27, 0x15, 0, 3, 0, 0],
        };
        self.reject(bytes, 1, EndReason::BadStartup);
    }

    fn add_postgres(&mut self, random: &mut Random, n: usize) {
        match random.below(10) {
            0 => self.add_broken_startup(random),
            1 => {
                // The server refuses, and the client goes on without TLS.
                self.decide(&SSL_REQUEST, to(OTHERS, false));
                self.gates.push((self.bytes.len(), 1));
                self.bytes.extend(forge::startup(&user(n)));
            }
            2 => self.decide(b"\x16", to(OTHERS, false)),
            3..=5 if n > 0 => {
                self.verdict = Verdict::Cancel(random.below(n as u64) as usize);
                self.from = self.bytes.len() + 16;
                self.needs = self.from;
            }
            _ => self.decide(&forge::startup(&user(n)), to(OTHERS, false)),
        }
    }
}

fn user(n: usize) -> String {
    format!("user-{n}")
}

const fn to(pool: usize, greets: bool) -> Verdict {
    Verdict::Pool {
        pool,
        greets,
        name: None,
        alpn: None,
    }
}

impl Client {
    /// `before`: the clients that were drawn already.
    pub(crate) fn drawn(random: &mut Random, plan: &Plan, n: usize, before: &[Self]) -> Self {
        let host = if plan.client_max.is_some() { 1 + n % 2 } else { n + 1 };
        let mut source: SocketAddr = ([10, 0, 0, host as u8], 1_024 + n as u16).into();
        if plan.denies && random.chance(200) {
            source.set_ip(DENIED);
        } else if plan.proxied && random.chance(60) {
            // Nobody believes what this one says.
            source.set_ip([172, 16, 0, 1].into());
        }
        let mut story = Story::drawn(random, plan, n, source);
        if let Verdict::Cancel(target) = &mut story.verdict {
            // Rather of one that gets a key.
            let has_key = |client: &Self| matches!(client.story.verdict, Verdict::Pool { .. });
            *target = before.iter().rposition(has_key).unwrap_or(*target);
        }
        let more = match story.verdict {
            Verdict::Pool { .. } => size(random, 15),
            Verdict::Reject(_) if random.chance(300) => size(random, 9),
            Verdict::Reject(_) | Verdict::CancelAll | Verdict::Cancel(_) => 0,
        };
        let mut stream = story.bytes.clone();
        stream.extend((0..more).map(|at| payload(n, at)));
        let mut client = Self {
            at: Duration::from_micros(random.below(600_000)),
            source,
            limit: usize::MAX,
            pauses: Vec::new(),
            finale: [Finale::Fin, Finale::Fin, Finale::Fin, Finale::Hold, Finale::Reset][random.below(5) as usize],
            lingers: Duration::from_micros(size(random, 19) as u64),
            story,
            stream,
        };
        if let Verdict::Cancel(target) = client.story.verdict {
            // Its time comes when the other has its key, perhaps.
            client.at = before[target].at + Duration::from_millis(random.between(10, 300));
        } else if random.chance(120) {
            client.limit = random.below(client.story.needs as u64) as usize;
        }
        client.draw_pauses(random, plan.timeout);
        client
    }

    /// Says something else, at once: what goes to the pool where nobody answers.
    pub(crate) fn rush(&mut self, random: &mut Random, plan: &Plan, n: usize) {
        for _ in 0..20 {
            let story = Story::drawn(random, plan, n, self.source);
            let goes = matches!(story.verdict, Verdict::Pool { pool, .. } if Some(pool) == plan.silent);
            if goes && story.eager.is_none() {
                self.stream = story.bytes.clone();
                self.story = story;
                self.limit = usize::MAX;
                self.pauses.clear();
                self.at /= 4;
                return;
            }
        }
    }

    fn draw_pauses(&mut self, random: &mut Random, timeout: Duration) {
        let needs = self.story.needs.max(self.story.header);
        let whole = match random.below(6) {
            0..=2 => return,
            3 => Duration::from_micros(random.below(20_000)),
            _ => timeout.mul_f64(random.between(10, 250) as f64 / 100.0),
        };
        let by_byte = random.chance(200) && needs > 0;
        let count = if by_byte { needs } else { random.size(1, 6) };
        let mut places: Vec<usize> = if by_byte {
            (0..needs).collect()
        } else {
            (0..count).map(|_| random.below(needs as u64 + 1) as usize).collect()
        };
        places.sort_unstable();
        places.dedup();
        let pause = whole / places.len() as u32;
        self.pauses = places.into_iter().map(|place| (place, pause)).collect();
    }
}

/// Clients that say nothing, one after the other.
pub(crate) fn crowd(random: &mut Random, plan: &Plan) -> Vec<Client> {
    let count = plan.unrouted_max as usize + random.between(1, 6) as usize;
    let step = plan.timeout / 2 / count as u32;
    (0..count)
        .map(|n| Client {
            at: step * n as u32,
            source: ([10, 0, 0, n as u8 + 1], 1_024 + n as u16).into(),
            story: Story {
                from: 1,
                needs: 1,
                ..Story::empty(to(OTHERS, false))
            },
            stream: Vec::new(),
            limit: 0,
            pauses: Vec::new(),
            finale: Finale::Hold,
            lingers: Duration::ZERO,
        })
        .collect()
}
