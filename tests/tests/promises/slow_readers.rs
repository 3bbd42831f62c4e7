//! P17: a reader that stops holds little.

use crate::{SOON, WarmUp, first_of, ms};
use ringway_tests::address::free_v4;
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{many, pings, run};
use ringway_tests::exchange::{Order, Plan};
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::seeded::Pattern;
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, Wire};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const READERS: u64 = 500;
const BYTES: u64 = 4 << 20;
/// The defaults of `buffers`.
const BUFFER_BYTES: u64 = 16 << 10;
const RING_BYTES: u64 = 2 * 1024 * BUFFER_BYTES;
/// What may be queued for a reader before its backend is no longer read, and what one burst adds: 64 buffers.
const QUEUED_BYTES: u64 = (256 << 10) + 64 * BUFFER_BYTES;

/// A client that asked for a stream and reads it at its own pace.
struct Reader {
    wire: Wire,
    stream: u64,
    seen: u64,
    buffer: Vec<u8>,
}

impl Reader {
    async fn open(dial: Dial, stream: u64) -> io::Result<Self> {
        let mut wire = dial.connect_within(SOON).await?;
        Plan {
            stream,
            up: 0,
            down: BYTES,
            order: Order::Together,
            pauses: false,
        }
        .open(&mut wire)
        .await?;
        Ok(Self {
            wire,
            stream: !stream,
            seen: 0,
            buffer: vec![0; 8 << 10],
        })
    }

    /// Reads once and checks; bytes read.
    async fn read(&mut self) -> io::Result<usize> {
        let n = self.wire.read(&mut self.buffer).await?;
        let exact = Pattern::new(self.stream).matches(self.seen, &self.buffer[..n]);
        self.seen += n as u64;
        if exact {
            Ok(n)
        } else {
            Err(io::Error::other(format!("wrong bytes before {}", self.seen)))
        }
    }

    /// Reads a little, now and then.
    async fn drip(&mut self, until: &AtomicBool) -> io::Result<()> {
        while !until.load(SeqCst) && self.read().await? > 0 {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    /// Reads the rest as fast as it comes.
    async fn resume(mut self) -> io::Result<()> {
        while self.read().await? > 0 {}
        self.wire.shutdown().await?;
        if self.seen == BYTES {
            Ok(())
        } else {
            Err(io::Error::other(format!("ended after {}", self.seen)))
        }
    }
}

/// Lets all drip for `span`; the most kernel worker threads and the most memory meanwhile, and the readers.
async fn drip_all(ringway: &Ringway, readers: Vec<Reader>, span: Duration) -> (usize, u64, Vec<io::Result<Reader>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut dripping = tokio::task::JoinSet::new();
    for mut reader in readers {
        let stop = stop.clone();
        dripping.spawn(async move { reader.drip(&stop).await.map(|()| reader) });
    }
    let (began, mut threads, mut memory) = (Instant::now(), 0, 0);
    while began.elapsed() < span {
        threads = threads.max(ringway.process.threads_named("iou-wrk"));
        memory = memory.max(ringway.process.memory());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, SeqCst);
    (threads, memory, dripping.join_all().await)
}

/// Lets all read the rest; what went wrong.
async fn resume_all(readers: Vec<io::Result<Reader>>) -> Vec<io::Error> {
    let mut wrong = Vec::new();
    let mut resumed = tokio::task::JoinSet::new();
    for reader in readers {
        match reader {
            Ok(reader) => drop(resumed.spawn(reader.resume())),
            Err(error) => wrong.push(error),
        }
    }
    wrong.extend(resumed.join_all().await.into_iter().filter_map(Result::err));
    wrong
}

#[test]
fn p17_a_reader_that_stops_holds_little() {
    let _turn = Turn::start("p17_a_reader_that_stops_holds_little", Duration::from_secs(180));
    let mut promise = Promise::new("P17", "a reader that stops holds little and harms nobody");
    let (source, echo, warm_up) = (
        Backend::start(Behaviour::Exchange),
        Backend::start(Behaviour::Echo),
        WarmUp::new(),
    );
    let (front, honest) = (free_v4(), free_v4());
    let setup = Setup::new()
        .top("workers", "2")
        .listener("front", &front, "source")
        .listener("honest", &honest, "echo");
    let setup = setup
        .pool("source", "round_robin", &[&source.address])
        .pool("echo", "round_robin", &[&echo.address]);
    let ringway = Ringway::start(&warm_up.add_to(setup));
    warm_up.run(&ringway);
    let memory = ringway.process.memory();
    let slow = Dial {
        receive_buffer: Some(16 << 10),
        ..Dial::to(&front)
    };
    let honest = Dial::to(&honest);
    run(None, async {
        let ping = |dial: Dial| async move { pings(&dial, 10, 200, Duration::from_millis(5)).await };
        let one = Reader::open(slow.clone(), 0).await.expect("the relay stands");
        let held = highest(&ringway, Duration::from_secs(1));
        promise.at_most(
            "bytes held for one stopped reader (256 KiB and a burst of 64 buffers)",
            held,
            QUEUED_BYTES,
        );

        let others = many(READERS - 1, 50, |stream| Reader::open(slow.clone(), stream + 1)).await;
        let mut readers: Vec<_> = others.into_iter().collect::<io::Result<_>>().expect("all relays stand");
        readers.push(one);
        let held = highest(&ringway, Duration::from_secs(2));
        promise.at_most(
            &format!("bytes held for {READERS}, in buffers and copied out of them (both rings)"),
            held,
            RING_BYTES,
        );

        // In turns, so that what the machine does besides meets both; the medians are compared.
        let (mut paths, mut cut) = ([Vec::new(), Vec::new()], Vec::new());
        for _ in 0..3 {
            for (path, dial) in [Dial::to(&echo.address), honest.clone()].into_iter().enumerate() {
                let mut seen = ping(dial).await;
                cut.append(&mut seen.errors);
                paths[path].push(seen.percentile(99));
            }
        }
        judge_honest(&mut promise, paths, cut.len());

        let (threads, most, readers) = drip_all(&ringway, readers, Duration::from_secs(figure(5, 10))).await;
        promise.at_most("kernel worker threads while all drip", threads, 0);
        promise.at_most(
            "bytes of process memory beside the buffers while all drip",
            most.saturating_sub(memory),
            RING_BYTES,
        );

        let wrong = resume_all(readers).await;
        let required = format!("{READERS} resumed are exact");
        promise.figure(required, first_of(&wrong), wrong.is_empty());
    });
    ringway.settle();
    let back = wait_for(SOON, || (ringway.process.memory() <= memory + (1 << 20)).then_some(()));
    let over = ringway.process.memory().saturating_sub(memory);
    promise.figure(
        "memory back within 1 MiB",
        format!("{over} bytes over the baseline"),
        back.is_some(),
    );
    promise.finish();
    ringway.finish();
}

/// The most bytes that were held during `span`.
fn highest(ringway: &Ringway, span: Duration) -> u64 {
    let (began, mut highest) = (Instant::now(), 0);
    while began.elapsed() < span {
        highest = highest.max(ringway.bytes_held(BUFFER_BYTES));
        std::thread::sleep(Duration::from_millis(20));
    }
    highest
}

/// How honest clients fared beside the stopped ones, against the direct path.
fn judge_honest(promise: &mut Promise, p99: [Vec<Duration>; 2], cut: usize) {
    let [direct, through] = p99.map(|mut rounds| {
        rounds.sort();
        rounds[rounds.len() / 2]
    });
    promise.at_most("honest clients cut", cut, 0);
    let limit = (direct * 3 / 2).max(direct + Duration::from_millis(5));
    let required = format!("honest p99 at most {} ms (direct path {} ms)", ms(limit), ms(direct));
    promise.figure(required, format!("{} ms", ms(through)), through <= limit);
}
