//! Bytes that go from one socket to another through a pipe: exact, in order, and never waited for (trap 9).

use crate::harness::*;
use ringway_runtime::{Errno, Handle, Pipe, Stream};
use socket2::SockRef;
use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// Pipes that a test has at the same time at most.
const PIPES: u32 = 4;
/// EPIPE of errno(3).
const BROKEN_PIPE: Errno = Errno(32);

/// One direction of a relay: everything until the end, which is passed on. Returns the bytes of its longest batch.
async fn splice(handle: &Handle, from: &Stream, to: &Stream, batch: u32) -> Result<u32, Errno> {
    let mut longest = 0;
    loop {
        from.readable().await?;
        let mut pipe = handle.pipe(PIPES).expect("a pipe");
        match from.fill(&mut pipe, batch) {
            Ok(0) => {
                to.shutdown_write()?;
                return Ok(longest);
            }
            Ok(bytes) => longest = longest.max(bytes),
            Err(Errno::AGAIN) => continue,
            Err(errno) => return Err(errno),
        }
        drain_all(&mut pipe, to).await?;
    }
}

async fn drain_all(pipe: &mut Pipe, to: &Stream) -> Result<(), Errno> {
    while !pipe.is_empty() {
        match to.drain(pipe) {
            Ok(_) => {}
            Err(Errno::AGAIN) => {
                to.writable().await?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes `len` seeded bytes in random pieces with random pauses, then ends.
fn write_all(mut peer: TcpStream, seed: u64, len: usize) {
    let mut random = Random::new(seed);
    let bytes = random.bytes(len);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let piece = (1 + random.below(1 << 20)).min(rest.len());
        peer.write_all(&rest[..piece]).expect("write");
        rest = &rest[piece..];
        pause(&mut random);
    }
    peer.shutdown(Shutdown::Write).expect("shutdown");
}

/// Reads in random pieces with random pauses until the end, and compares.
fn read_all(mut peer: TcpStream, seed: u64, len: usize) {
    let wanted = Random::new(seed).bytes(len);
    let mut random = Random::new(!seed);
    let mut got = Vec::with_capacity(len);
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = peer.read(&mut piece[..1 + random.below(1 << 20)]).expect("no reset");
        if n == 0 {
            break;
        }
        got.extend_from_slice(&piece[..n]);
        pause(&mut random);
    }
    assert_same(&got, &wanted, &format!("seed {seed:#x}"));
}

fn pause(random: &mut Random) {
    if random.below(8) == 0 {
        thread::sleep(Duration::from_micros(random.below(3_000) as u64));
    }
}

/// Runs both and returns when both are over.
async fn both<A: 'static, B: 'static>(
    handle: &Handle,
    first: impl Future<Output = A> + 'static,
    second: impl Future<Output = B> + 'static,
) {
    let done = Counter::default();
    let counter = done.clone();
    handle.spawn(async move {
        first.await;
        counter.add();
    });
    let counter = done.clone();
    handle.spawn(async move {
        second.await;
        counter.add();
    });
    done.reaches(2).await;
}

#[test]
fn both_directions_at_once_are_exact() {
    const LEN: usize = 64 << 20;
    run(SMALL, |handle| async move {
        let (client, client_peer) = pair(&handle).await;
        let (backend, backend_peer) = pair(&handle).await;
        let peers = [
            (client_peer.try_clone(), 0x11, false),
            (backend_peer.try_clone(), 0x11, true),
            (backend_peer.try_clone(), 0x22, false),
            (client_peer.try_clone(), 0x22, true),
        ];
        let peers = peers.map(|(peer, seed, reads)| {
            let peer = peer.expect("dup");
            in_thread(move || {
                if reads {
                    read_all(peer, seed, LEN);
                } else {
                    write_all(peer, seed, LEN);
                }
            })
        });
        let (client, backend) = (std::rc::Rc::new(client), std::rc::Rc::new(backend));
        let up = (handle.clone(), client.clone(), backend.clone());
        let down = (handle.clone(), backend, client);
        let inner = handle.clone();
        both(
            &inner,
            async move { splice(&up.0, &up.1, &up.2, u32::MAX).await.expect("an orderly end") },
            async move {
                splice(&down.0, &down.1, &down.2, 100_000)
                    .await
                    .expect("an orderly end")
            },
        )
        .await;
        for peer in peers {
            peer.await;
        }
        assert_eq!(handle.stats().pipes, 0, "a pipe was kept");
    });
}

/// Bytes and FIN that are there before anybody looks, and the other direction goes on.
#[test]
fn an_end_comes_after_the_bytes_and_ends_one_direction() {
    run(SMALL, |handle| async move {
        let (client, mut client_peer) = pair(&handle).await;
        let (backend, mut backend_peer) = pair(&handle).await;
        let sent = Random::new(3).bytes(200_000);
        client_peer.write_all(&sent).expect("write");
        client_peer.shutdown(Shutdown::Write).expect("shutdown");
        let reader = in_thread(move || (read_to_end(&mut backend_peer), backend_peer));
        splice(&handle, &client, &backend, u32::MAX)
            .await
            .expect("an orderly end");
        let (got, mut backend_peer) = reader.await;
        assert_same(&got, &sent, "towards the backend");
        backend_peer.write_all(b"the answer").expect("write");
        drop(backend_peer);
        splice(&handle, &backend, &client, u32::MAX)
            .await
            .expect("an orderly end");
        assert_eq!(read_to_end(client_peer), b"the answer");
    });
}

#[test]
fn a_reset_comes_after_the_bytes() {
    run(SMALL, |handle| async move {
        let (client, mut client_peer) = pair(&handle).await;
        let (backend, mut backend_peer) = pair(&handle).await;
        client_peer.write_all(&[7; 100_000]).expect("write");
        reset(client_peer);
        let outcome = splice(&handle, &client, &backend, 10_000).await;
        assert_eq!(outcome, Err(Errno::CONNECTION_RESET));
        drop(backend);
        let mut got = Vec::new();
        backend_peer.read_to_end(&mut got).expect("an orderly end");
        assert_same(&got, &[7; 100_000], "before the reset");
    });
}

/// A sink that is reset is an error and no signal: programs in Rust ignore SIGPIPE, which splice(2) cannot be told not
/// to raise.
#[test]
fn a_sink_that_was_reset_fails_without_a_signal() {
    /// Bit of SIGPIPE in the mask of ignored signals (proc(5)): signal 13.
    const SIGPIPE_BIT: u64 = 1 << 12;
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a mask").trim(), 16).expect("hexadecimal");
    assert_ne!(ignored & SIGPIPE_BIT, 0, "SIGPIPE is not ignored");
    run(SMALL, |handle| async move {
        let (client, mut client_peer) = pair(&handle).await;
        let (backend, backend_peer) = pair(&handle).await;
        client_peer.write_all(&[7; 10_000]).expect("write");
        client.readable().await.expect("bytes");
        let mut pipe = handle.pipe(PIPES).expect("a pipe");
        let filled = client.fill(&mut pipe, 10_000).expect("bytes");
        reset(backend_peer);
        // The first who asks learns of the reset, everybody else of a broken pipe.
        until(|| backend.tcp_info().is_some_and(|info| info.broken)).await;
        assert_eq!(backend.drain(&mut pipe), Err(Errno::CONNECTION_RESET));
        assert_eq!(backend.drain(&mut pipe), Err(BROKEN_PIPE));
        assert_eq!(pipe.bytes(), filled, "nothing was taken");
        drop(pipe);
        let again = handle.pipe(PIPES).expect("a pipe");
        assert!(again.is_empty());
        drain_nothing_into_a_new_pair(&handle, again).await;
    });
}

/// A pipe that was given back with bytes is not the one that is given out next.
async fn drain_nothing_into_a_new_pair(handle: &Handle, mut pipe: Pipe) {
    let (from, mut from_peer) = pair(handle).await;
    let (to, to_peer) = pair(handle).await;
    from_peer.write_all(b"new").expect("write");
    from.readable().await.expect("bytes");
    assert_eq!(from.fill(&mut pipe, u32::MAX), Ok(3));
    drain_all(&mut pipe, &to).await.expect("room");
    drop(to);
    assert_eq!(read_to_end(to_peer), b"new");
}

/// Neither a full sink nor an empty source is waited for, and nothing of what did not fit is lost.
#[test]
fn a_full_sink_and_an_empty_source_are_not_waited_for() {
    run(SMALL, |handle| async move {
        let (client, client_peer) = pair(&handle).await;
        let (backend, backend_peer) = pair(&handle).await;
        let mut pipe = handle.pipe(PIPES).expect("a pipe");
        assert_eq!(client.fill(&mut pipe, u32::MAX), Err(Errno::AGAIN), "nothing has come");
        let sent = Random::new(5).bytes(32 << 20);
        let writer = in_thread({
            let sent = sent.clone();
            move || write_and_return(client_peer, &sent)
        });
        // Nobody reads: some time the sink is full, and the pipe holds what it did not take.
        let full = loop {
            if pipe.is_empty() {
                client.readable().await.expect("bytes");
                client.fill(&mut pipe, u32::MAX).expect("bytes");
            }
            if let Err(errno) = backend.drain(&mut pipe) {
                break errno;
            }
        };
        assert_eq!(full, Errno::AGAIN);
        assert!(pipe.bytes() > 0);
        let reader = in_thread(move || read_to_end(backend_peer));
        drain_all(&mut pipe, &backend).await.expect("room");
        drop(pipe);
        handle.spawn(async move {
            let peer = writer.await;
            peer.shutdown(Shutdown::Write).expect("shutdown");
        });
        splice(&handle, &client, &backend, u32::MAX)
            .await
            .expect("an orderly end");
        assert_same(&reader.await, &sent, "through a full sink");
    });
}

/// Sockets block again after each call: the ring would answer EAGAIN at once otherwise.
#[test]
fn the_ring_waits_on_a_socket_that_was_spliced() {
    run(SMALL, |handle| async move {
        let (client, mut client_peer) = pair(&handle).await;
        let (backend, backend_peer) = pair(&handle).await;
        client_peer.write_all(b"spliced").expect("write");
        client.readable().await.expect("bytes");
        let mut pipe = handle.pipe(PIPES).expect("a pipe");
        client.fill(&mut pipe, u32::MAX).expect("bytes");
        backend.drain(&mut pipe).expect("room");
        drop(pipe);
        assert_eq!(read_len(&backend_peer, 7), b"spliced");
        for (stream, mut peer) in [(&client, client_peer), (&backend, backend_peer)] {
            let mut receive = stream.receive();
            two_turns().await;
            assert!(at_once(&mut receive).await.is_none(), "nothing has come");
            peer.write_all(b"received").expect("write");
            assert_eq!(receive_len(&mut receive, 8).await, b"received");
        }
    });
}

/// An urgent byte is in the way of splice(2): it says EAGAIN although there is something. A receive goes past it.
#[test]
fn an_urgent_byte_is_seen_as_nothing_to_splice() {
    run(SMALL, |handle| async move {
        let (client, mut client_peer) = pair(&handle).await;
        client_peer.write_all(b"before").expect("write");
        SockRef::from(&client_peer).send_out_of_band(b"!").expect("send");
        client_peer.write_all(b"after").expect("write");
        let mut pipe = handle.pipe(PIPES).expect("a pipe");
        while pipe.bytes() < 6 {
            client.readable().await.expect("bytes");
            client.fill(&mut pipe, u32::MAX).expect("what is before it");
        }
        assert_eq!(client.fill(&mut pipe, u32::MAX), Err(Errno::AGAIN));
        let mut receive = client.receive();
        assert_eq!(receive_len(&mut receive, 5).await, b"after");
        drop(pipe);
    });
}

#[test]
fn pipes_are_bounded_and_used_again() {
    run(SMALL, |handle| async move {
        let mut pipes: Vec<Pipe> = (0..PIPES).map(|_| handle.pipe(PIPES).expect("a pipe")).collect();
        assert!(handle.pipe(PIPES).is_none(), "one more than the bound");
        assert_eq!(handle.stats().pipes, u64::from(PIPES));
        let calls = handle.stats().direct_calls;
        pipes.pop();
        let again = handle.pipe(PIPES).expect("the one that was given back");
        assert_eq!(handle.stats().direct_calls, calls, "it was made anew");
        drop((pipes, again));
        assert_eq!(handle.stats().pipes, 0);
        // Those that nobody wants are closed: two system calls each.
        let calls = handle.stats().direct_calls;
        handle.sleep(Duration::from_millis(2_100)).await;
        two_turns().await;
        assert_eq!(handle.stats().direct_calls, calls + 2 * u64::from(PIPES));
    });
}
