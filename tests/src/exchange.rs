//! Two seeded streams over one connection, one each way, in random pieces and pauses, checked byte for byte.
//!
//! The client opens with a plan of 32 bytes that tells the backend what to expect and what to send, so that both ends
//! check what they receive and each end knows when the other is to end.

use crate::client::{many, run};
use crate::namespace::Namespace;
use crate::seeded::{Pattern, Rng};
use crate::wire::{Dial, Wire};
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Who ends its direction first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Both directions at once, each ends when it is through.
    Together,
    /// The client ends; only then does the backend send.
    ClientEndsFirst,
    /// The backend ends; only then does the client send.
    BackendEndsFirst,
}

/// What one connection is to carry.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of the stream; the backend's direction has its complement.
    pub stream: u64,
    /// Bytes from the client, after the plan.
    pub up: u64,
    /// Bytes from the backend.
    pub down: u64,
    /// Who ends first.
    pub order: Order,
    /// Whether pieces are small and paused now and then.
    pub pauses: bool,
}

const PLAN_BYTES: usize = 32;

impl Plan {
    fn encode(&self) -> [u8; PLAN_BYTES] {
        let order = match self.order {
            Order::Together => 0,
            Order::ClientEndsFirst => 1,
            Order::BackendEndsFirst => 2,
        };
        let mut bytes = [0; PLAN_BYTES];
        let fields = [self.stream, self.up, self.down, order | u64::from(self.pauses) << 8];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; PLAN_BYTES]) -> io::Result<Self> {
        let field = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
        let order = match field(3) & 0xFF {
            0 => Order::Together,
            1 => Order::ClientEndsFirst,
            2 => Order::BackendEndsFirst,
            other => return Err(io::Error::other(format!("damaged plan: order {other}"))),
        };
        Ok(Self {
            stream: field(0),
            up: field(1),
            down: field(2),
            order,
            pauses: field(3) >> 8 == 1,
        })
    }

    /// Tells the backend the plan: the first step of a client that does the others by hand.
    pub async fn open(&self, wire: &mut Wire) -> io::Result<()> {
        wire.write_all(&self.encode()).await
    }

    /// The client's part; an error says what was wrong.
    pub async fn run_client(self, mut wire: Wire) -> io::Result<()> {
        self.open(&mut wire).await?;
        self.carry_out(wire).await
    }

    /// The client's part after [`Self::open`].
    pub async fn carry_out(self, wire: Wire) -> io::Result<()> {
        let (mut from, mut to) = tokio::io::split(wire);
        let ends_second = self.order == Order::BackendEndsFirst;
        self.both(
            &mut to,
            (self.stream, self.up),
            &mut from,
            (!self.stream, self.down),
            ends_second,
        )
        .await
    }

    /// The backend's part.
    pub async fn run_backend(mut wire: Wire) -> io::Result<()> {
        let mut bytes = [0; PLAN_BYTES];
        wire.read_exact(&mut bytes).await?;
        let plan = Self::decode(&bytes)?;
        let (mut from, mut to) = tokio::io::split(wire);
        let ends_second = plan.order == Order::ClientEndsFirst;
        plan.both(
            &mut to,
            (!plan.stream, plan.down),
            &mut from,
            (plan.stream, plan.up),
            ends_second,
        )
        .await
    }

    async fn both(
        self,
        to: &mut (impl AsyncWrite + Unpin),
        (out_stream, out_bytes): (u64, u64),
        from: &mut (impl AsyncRead + Unpin),
        (in_stream, in_bytes): (u64, u64),
        ends_second: bool,
    ) -> io::Result<()> {
        if ends_second {
            receive(from, in_stream, in_bytes, self.pauses).await?;
            send(to, out_stream, out_bytes, self.pauses).await
        } else {
            tokio::try_join!(
                send(to, out_stream, out_bytes, self.pauses),
                receive(from, in_stream, in_bytes, self.pauses)
            )
            .map(|_| ())
        }
    }
}

/// Carries out `count` plans at once against a listener, streams numbered from the plan's on; a sentence for each that failed.
pub fn run_many(namespace: Option<&Namespace>, dial: &Dial, count: u64, plan: Plan) -> Vec<String> {
    let limit = Duration::from_secs(120);
    run(namespace, async {
        let results = many(count, usize::MAX, |stream| {
            let dial = dial.clone();
            let work = async move {
                let wire = dial.connect().await?;
                Plan {
                    stream: plan.stream + stream,
                    ..plan
                }
                .run_client(wire)
                .await
            };
            async move { (stream, tokio::time::timeout(limit, work).await) }
        });
        let failed = |(stream, result)| match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("stream {stream}: {error}")),
            Err(_) => Some(format!("stream {stream}: not through after {limit:?}")),
        };
        results.await.into_iter().filter_map(failed).collect()
    })
}

async fn send(to: &mut (impl AsyncWrite + Unpin), stream: u64, bytes: u64, pauses: bool) -> io::Result<()> {
    let pattern = Pattern::new(stream);
    let mut rng = Rng::new(stream);
    let mut buffer = vec![0; 64 * 1024];
    let mut sent = 0;
    while sent < bytes {
        let piece = piece(&mut rng, buffer.len(), pauses).min((bytes - sent) as usize);
        pattern.fill(sent, &mut buffer[..piece]);
        to.write_all(&buffer[..piece]).await?;
        sent += piece as u64;
        pause(&mut rng, pauses).await;
    }
    to.shutdown().await
}

/// Reads to the end of the stream and demands exactly the bytes planned.
pub async fn receive(from: &mut (impl AsyncRead + Unpin), stream: u64, bytes: u64, pauses: bool) -> io::Result<()> {
    let pattern = Pattern::new(stream);
    let mut rng = Rng::new(!stream);
    let mut buffer = vec![0; 64 * 1024];
    let mut seen = 0;
    loop {
        let room = piece(&mut rng, buffer.len(), pauses);
        let n = from.read(&mut buffer[..room]).await?;
        if n == 0 {
            let short = format!("ended after {seen} of {bytes} bytes");
            return if seen == bytes {
                Ok(())
            } else {
                Err(io::Error::new(ErrorKind::UnexpectedEof, short))
            };
        }
        if !pattern.matches(seen, &buffer[..n]) || seen + n as u64 > bytes {
            let wrong = format!("wrong bytes within {seen}..{} of {bytes}", seen + n as u64);
            return Err(io::Error::new(ErrorKind::InvalidData, wrong));
        }
        seen += n as u64;
        pause(&mut rng, pauses).await;
    }
}

/// One byte to all of the buffer: small ones often, so that segments do not fall on buffer boundaries.
fn piece(rng: &mut Rng, max: usize, pauses: bool) -> usize {
    if !pauses {
        return max;
    }
    let ceiling = match rng.below(4) {
        0 => 100,
        1 => 5_000,
        _ => max as u64,
    };
    1 + rng.below(ceiling) as usize
}

async fn pause(rng: &mut Rng, pauses: bool) {
    if pauses && rng.below(8) == 0 {
        tokio::time::sleep(Duration::from_micros(rng.below(4_000))).await;
    }
}
