//! What a test of its own process can see: descriptors, threads, memory, limits, signals. One test at a time.
//!
//! Tests that need a lowered limit or a process to kill run this binary again, as a child.

#[path = "kernel/harness.rs"]
#[allow(dead_code)]
mod harness;

use harness::*;
use ringway_runtime::{Address, Capabilities, Errno, Handle, Listener, Runtime, SocketOptions, Stream, socket};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names the part of a test that a child process is to run.
const CHILD: &str = "RINGWAY_TEST_CHILD";

/// Holds off the other tests of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the descriptors of this process are.
fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("procfs");
    let mut links: Vec<_> = entries
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        // The directory that is being read.
        .filter(|link| !link.starts_with("/proc/"))
        .collect();
    links.sort();
    links
}

/// Kernel threads that io_uring made for this process.
fn kernel_workers() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-")).collect()
}

/// `body` with a runtime, and nothing of this process's descriptors changed after it.
fn without_leaks(body: impl FnOnce() + Send + 'static) {
    let _alone = alone();
    let before = descriptors();
    limited(body);
    let after = descriptors();
    assert_eq!(after.len(), before.len(), "before {before:#?}, after {after:#?}");
}

/// This binary again, for one of its tests, behind commands of a shell.
fn child(prelude: &str, test: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{prelude} exec \"$0\" \"$@\""));
    command.arg(std::env::current_exe().expect("this binary"));
    command.args([test, "--exact", "--nocapture", "--test-threads", "1"]);
    command.env(CHILD, "1").env("RUST_BACKTRACE", "0");
    command
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Everything at once: accepts, receives (armed, paused, starved), sends, connects, waits for room, timers, tasks.
async fn mess(handle: Handle, keep: impl FnOnce(Vec<Box<dyn std::any::Any>>)) {
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    let (held, stream, receive) = all_buffers(&handle).await;
    let (listener, address) = listen(&handle);
    let accepting = listener.accept();
    let queued: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).expect("connect")).collect();
    for n in 0..32 {
        let (stream, peer) = pair(&handle).await;
        let mut receive = stream.receive();
        if n % 3 == 0 {
            receive.pause();
        }
        let send = stream.send_bytes(vec![0; 1 << 20].into(), 0, n % 2 == 0);
        kept.push(Box::new((receive, send, stream.writable(), stream, peer)));
    }
    let (listening, black_hole) = full_backlog();
    let options = SocketOptions::default();
    kept.push(Box::new(
        handle
            .connect(&Address::Inet(black_hole), None, &options)
            .expect("socket"),
    ));
    let sleeping = handle.clone();
    handle.spawn(async move { sleeping.sleep(Duration::from_secs(3_600)).await });
    two_turns().await;
    assert!(
        handle.stats().operations > 64,
        "too little is in flight: {:?}",
        handle.stats()
    );
    kept.push(Box::new((
        held, stream, receive, listener, accepting, queued, listening,
    )));
    keep(kept);
}

/// A runtime that is dropped with everything in flight ends at once, and takes everything with it.
#[test]
fn dropping_a_runtime_takes_everything_with_it() {
    without_leaks(|| {
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        // Owned by a task that never ends.
        let inner = handle.clone();
        block_on(
            &runtime,
            mess(handle.clone(), move |kept| {
                inner.spawn(async move {
                    let _kept = kept;
                    std::future::pending::<()>().await;
                });
            }),
        );
        drop(handle);
        let start = Instant::now();
        drop(runtime);
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?} to end",
            start.elapsed()
        );
    });
}

/// The same when streams, operations and leases outlive the runtime, and go later.
#[test]
fn what_outlives_a_runtime_goes_quietly() {
    without_leaks(|| {
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let keep = kept.clone();
        block_on(&runtime, mess(handle.clone(), move |all| *keep.borrow_mut() = all));
        let start = Instant::now();
        drop(runtime);
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?} to end",
            start.elapsed()
        );
        assert_eq!(handle.stats().operations, 0);
        drop(handle);
        kept.borrow_mut().clear();
    });
}

/// Operations dropped at random moments of their lives leave nothing behind (traps 11, 12 and 24).
#[test]
fn dropping_operations_at_random_moments_leaks_nothing() {
    without_leaks(|| {
        let runtime = new_runtime(TIGHT);
        let handle = runtime.handle().clone();
        let seed = 0x5eed;
        println!("seed {seed:#x}");
        block_on(&runtime, async move {
            let mut random = Random::new(seed);
            let backend = TcpListener::bind("127.0.0.1:0").expect("bind");
            let address = Address::Inet(backend.local_addr().expect("bound"));
            backend.set_nonblocking(true).expect("fcntl");
            for _ in 0..400 {
                drop_at_random(&handle, &address, &mut random).await;
                while backend.accept().is_ok() {}
            }
        });
        assert_quiet(&runtime);
    });
}

async fn drop_at_random(handle: &Handle, backend: &Address, random: &mut Random) {
    let (listener, address) = listen(handle);
    let mut accepting = listener.accept();
    let mut peers: Vec<_> = (0..1 + random.below(3))
        .map(|_| TcpStream::connect(address).expect("connect"))
        .collect();
    let stream = accept(&mut accepting).await.expect("accept");
    peers[0].write_all(&vec![1; random.below(40_000)]).expect("write");
    let mut things: Vec<Box<dyn std::any::Any>> = vec![
        Box::new(stream.receive()),
        Box::new(stream.writable()),
        Box::new(stream.send_bytes(vec![2; 50_000].into(), 0, random.below(2) == 0)),
        Box::new(
            handle
                .connect(backend, None, &SocketOptions::default())
                .expect("socket"),
        ),
        Box::new(accepting),
        Box::new(listener),
        Box::new(stream),
        Box::new(peers),
    ];
    while !things.is_empty() {
        drop(things.swap_remove(random.below(things.len())));
        for _ in 0..random.below(3) {
            one_turn().await;
        }
    }
}

/// Trap 24: numbers of descriptors are used again at once; no cancel hits the next owner of one.
#[test]
fn reused_descriptors_are_not_cancelled() {
    without_leaks(|| {
        let runtime = new_runtime(USUAL);
        let handle = runtime.handle().clone();
        block_on(&runtime, async move {
            let (listener, address) = listen(&handle);
            let mut accepting = listener.accept();
            let mut old: Option<(Stream, TcpStream)> = None;
            for n in 0..1_000_u32 {
                let mut peer = TcpStream::connect(address).expect("connect");
                // In one batch: the cancel of the old receive, its close, and the new connection with its receive.
                if let Some((stream, _peer)) = old.take() {
                    drop(stream.receive());
                }
                let stream = accept(&mut accepting).await.expect("accept");
                let mut receive = stream.receive();
                peer.write_all(&n.to_be_bytes()).expect("write");
                assert_eq!(receive_len(&mut receive, 4).await, n.to_be_bytes());
                old = Some((stream, peer));
            }
        });
        assert_quiet(&runtime);
    });
}

/// Trap 8: EMFILE ends accepting and leaves the client in the backlog; after a descriptor came back it is accepted.
#[test]
fn running_out_of_descriptors_loses_no_client() {
    let _alone = alone();
    if is_child() {
        return exhaust_descriptors();
    }
    let status = child("ulimit -n 64;", "running_out_of_descriptors_loses_no_client")
        .status()
        .expect("sh");
    assert!(status.success(), "{status}");
}

fn exhaust_descriptors() {
    /// EMFILE and EAGAIN of errno(3).
    const TOO_MANY: Errno = Errno(24);
    run(SMALL, |handle| async move {
        let (listener, address) = listen(&handle);
        let peers: Vec<_> = (0..8).map(|_| TcpStream::connect(address).expect("connect")).collect();
        let mut spare: Vec<fs::File> = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            spare.push(file);
        }
        spare.truncate(spare.len() - 3);
        let mut accepting = listener.accept();
        let mut accepted = Vec::new();
        let error = loop {
            match accept(&mut accepting).await {
                Ok(stream) => accepted.push(stream),
                Err(errno) => break errno,
            }
        };
        assert_eq!((accepted.len(), error), (3, TOO_MANY));
        assert_eq!(accept(&mut accepting).await.map(drop), Err(TOO_MANY), "the error stays");
        let connecting = handle.connect(&Address::Inet(address), None, &SocketOptions::default());
        assert_eq!(connecting.map(drop).map_err(|errno| errno.is_local()), Err(true));
        drop(spare);
        let mut accepting = listener.accept();
        while accepted.len() < peers.len() {
            accepted.push(accept(&mut accepting).await.expect("there are descriptors again"));
        }
    });
}

/// What keeps io_uring from being used is named with its cure: here the limit of descriptors.
#[test]
fn too_few_descriptors_are_named_with_the_cure() {
    let _alone = alone();
    if is_child() {
        let mut taken = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            taken.push(file);
        }
        let error = Capabilities::probe().expect_err("no descriptor is free").to_string();
        assert!(
            error.starts_with("io_uring cannot be used: io_uring_setup failed: Too many open files"),
            "{error}"
        );
        assert!(error.contains("LimitNOFILE"), "{error}");
        return;
    }
    let status = child("ulimit -n 32;", "too_few_descriptors_are_named_with_the_cure")
        .status()
        .expect("sh");
    assert!(status.success(), "{status}");
}

/// The same for the limit of locked memory, which the ring counts against unless CAP_IPC_LOCK lifts it.
#[test]
fn too_little_locked_memory_is_named_with_the_cure() {
    const NAME: &str = "too_little_locked_memory_is_named_with_the_cure";
    let _alone = alone();
    if is_child() {
        let capabilities = Capabilities::probe().expect("a small ring fits");
        let error = Runtime::new(&capabilities, USUAL)
            .expect_err("64 KiB hold no ring of this size")
            .to_string();
        assert!(
            error.contains("Cannot allocate memory") && error.contains("LimitMEMLOCK"),
            "{error}"
        );
        return;
    }
    let without_capability =
        "ulimit -l 64; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock -- \"$0\" \"$@\";";
    let prelude = match (may_lock_memory(), Command::new("setpriv").arg("--version").output()) {
        (false, _) => "ulimit -l 64;",
        (true, Ok(_)) => without_capability,
        (true, Err(_)) => return println!("not tested: no setpriv to give up CAP_IPC_LOCK with"),
    };
    let status = child(prelude, NAME).status().expect("sh");
    assert!(status.success(), "{status}");
}

/// CAP_IPC_LOCK, bit 14 of capabilities(7).
fn may_lock_memory() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .expect("the field");
    u64::from_str_radix(bits.trim(), 16).expect("hexadecimal") & 1 << 14 != 0
}

/// Trap 21: an address that a killed process listened on stays bound for some milliseconds.
#[test]
fn the_address_of_a_killed_process_is_free_soon() {
    let _alone = alone();
    if is_child() {
        return accept_until_killed();
    }
    for _ in 0..3 {
        let mut command = child("", "the_address_of_a_killed_process_is_free_soon");
        let mut process = command.stdout(Stdio::piped()).spawn().expect("sh");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let said = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("bound ")?.1.to_owned()));
        let address = Address::Inet(said.expect("it says its address").parse().expect("an address"));
        process.kill().expect("SIGKILL");
        process.wait().expect("its end");
        socket::probe_address_free(&address).expect("free within 50 ms");
        socket::listen(&address, &LISTEN).expect("free");
    }
}

fn accept_until_killed() {
    run(SMALL, |handle| async move {
        let (listener, address) = listen(&handle);
        let mut accepting = listener.accept();
        two_turns().await;
        println!("bound {address}");
        let _ = accept(&mut accepting).await;
    });
}

/// Trap 10 and close-on-exec: every socket of the runtime blocks (the ring waits for it), and no child inherits it.
#[test]
fn sockets_block_and_are_closed_on_exec() {
    /// `flags` of proc_pid_fdinfo(5), octal, as in open(2).
    const NONBLOCK: u32 = 0o4000;
    const CLOEXEC: u32 = 0o2_000_000;
    without_leaks(|| {
        let before = socket_flags().len();
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        block_on(&runtime, async move {
            let (listener, address) = listen(&handle);
            let address = Address::Inet(address);
            let connecting = handle
                .connect(&address, None, &SocketOptions::default())
                .expect("socket");
            let mut accepting = listener.accept();
            let accepted = accept(&mut accepting).await.expect("accept");
            let connected = connecting.await.expect("connect");
            let again = handle
                .connect(&address, None, &SocketOptions::default())
                .expect("socket")
                .await
                .expect("connect");
            drop(accepting);
            let queued = queued_of(&listener);
            let flags = socket_flags();
            assert_eq!(flags.len() - before, if queued.is_some() { 5 } else { 4 });
            for flags in flags {
                assert_eq!(flags & (NONBLOCK | CLOEXEC), CLOEXEC, "flags {flags:o}");
            }
            drop((accepted, connected, again, queued));
        });
        assert_quiet(&runtime);
    });
}

fn queued_of(listener: &Listener) -> Option<Stream> {
    listener.accept_queued().ok()
}

/// The open(2) flags of every socket of this process.
fn socket_flags() -> Vec<u32> {
    let entries = fs::read_dir("/proc/self/fd").expect("procfs").filter_map(Result::ok);
    let sockets = entries.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.display().to_string().starts_with("socket:"))
    });
    let infos = sockets.map(|entry| Path::new("/proc/self/fdinfo").join(entry.file_name()));
    infos
        .filter_map(|info| flags_of(&fs::read_to_string(info).ok()?))
        .collect()
}

fn flags_of(info: &str) -> Option<u32> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}

/// Trap 5's cause: after 128 wake-ups of one request the kernel moves it to a thread of its own. None of ours may.
#[test]
fn no_kernel_threads_appear() {
    without_leaks(|| {
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        block_on(&runtime, async move {
            let (stream, peer) = pair(&handle).await;
            let (client, backend) = connected(&handle).await;
            let reader = in_thread(move || read_len(backend, 400 * 512).len());
            let mut receive = stream.receive();
            for n in 0..400 {
                (&peer).write_all(&[n as u8; 512]).expect("write");
                let mut left = 512;
                while left > 0 {
                    let leases = receive.next().await.expect("receive").expect("bytes");
                    left -= leases.bytes();
                    send_all_silently(&client, leases).await.expect("send");
                }
                handle.sleep_until(handle.now()).await;
            }
            assert_eq!(reader.await, 400 * 512);
            // A send that waits for room again and again: a slow reader behind a small buffer.
            let (slow, backend) = connected(&handle).await;
            let reader = in_thread(move || {
                let mut len = 0;
                while len < 8 << 20 {
                    len += read_len(&backend, 32 * 1024).len();
                    std::thread::yield_now();
                }
            });
            let mut outcome = slow.send_bytes(vec![3; 8 << 20].into(), 0, true).await;
            while let ringway_runtime::SendOutcome::Full(ringway_runtime::Unsent::Bytes { bytes, sent }) = outcome {
                slow.writable().await.expect("room");
                outcome = slow.send_bytes(bytes, sent, true).await;
            }
            reader.await;
            assert_eq!(kernel_workers(), Vec::<String>::new());
        });
        assert_quiet(&runtime);
    });
}

/// Splicing happens on the caller's thread, and sockets are blocking again after each call (traps 9 and 10).
#[test]
fn splicing_leaves_neither_thread_nor_flag() {
    /// As in `sockets_block_and_are_closed_on_exec`.
    const NONBLOCK: u32 = 0o4000;
    const LEN: usize = 16 << 20;
    without_leaks(|| {
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        block_on(&runtime, async move {
            let (from, from_peer) = pair(&handle).await;
            let (to, to_peer) = connected(&handle).await;
            let writer = in_thread(move || write_and_return(from_peer, &vec![9; LEN]));
            let reader = in_thread(move || read_len(to_peer, LEN).len());
            let mut moved = 0;
            while moved < LEN {
                from.readable().await.expect("bytes");
                let mut pipe = handle.pipe(1).expect("a pipe");
                moved += from.fill(&mut pipe, u32::MAX).expect("bytes") as usize;
                while !pipe.is_empty() {
                    if to.drain(&mut pipe).is_err() {
                        to.writable().await.expect("room");
                    }
                    let flags = socket_flags();
                    assert!(flags.iter().all(|flags| flags & NONBLOCK == 0), "flags {flags:?}");
                }
            }
            drop(writer.await);
            assert_eq!(reader.await, LEN);
            assert_eq!(kernel_workers(), Vec::<String>::new());
        });
        assert_quiet(&runtime);
    });
}

/// A runtime with nothing to do does nothing, however much it holds.
#[test]
fn an_idle_runtime_does_not_turn() {
    without_leaks(|| {
        let runtime = new_runtime(SMALL);
        let handle = runtime.handle().clone();
        block_on(&runtime, async move {
            let mut kept = Vec::new();
            for _ in 0..100 {
                let (stream, peer) = pair(&handle).await;
                kept.push((stream.receive(), stream, peer));
            }
            two_turns().await;
            let before = handle.stats();
            handle.sleep(Duration::from_millis(500)).await;
            let turns = handle.stats().turns - before.turns;
            println!("{turns} turns in half a second");
            // The wheel may come back once for each of its levels on the way to a deadline.
            assert!(turns <= 4, "{turns} turns in half a second of idleness");
        });
        assert_quiet(&runtime);
    });
}

/// What a waiting connection costs in this process's memory.
#[test]
fn idle_receives_cost_little_memory() {
    const CONNECTIONS: usize = 5_000;
    without_leaks(|| {
        let runtime = new_runtime(USUAL);
        let handle = runtime.handle().clone();
        let bytes = block_on(&runtime, async move {
            let (listener, address) = listen(&handle);
            let mut accepting = listener.accept();
            let mut peers = Vec::with_capacity(CONNECTIONS);
            let before = resident();
            let mut tasks = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                peers.push(TcpStream::connect(address).expect("connect: descriptors for 10,000 sockets are needed"));
                let stream = accept(&mut accepting).await.expect("accept");
                tasks.push(handle.spawn(async move {
                    let mut receive = stream.receive();
                    while let Ok(Some(_)) = receive.next().await {}
                }));
            }
            two_turns().await;
            let bytes = (resident() - before) / CONNECTIONS;
            peers.clear();
            until(|| tasks.iter().all(|task| !handle.is_alive(*task))).await;
            bytes
        });
        println!("{bytes} bytes of this process per idle receive, with its stream and task");
        assert!(bytes < 600, "{bytes} bytes");
        assert_quiet(&runtime);
    });
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("the second field");
    pages * 4096
}
