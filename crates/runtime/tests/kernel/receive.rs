//! Receiving: how it ends, pauses, and waits for buffers.

use crate::harness::*;
use ringway_runtime::{Address, Errno, Handle, Receive, Stream, socket};
use std::future::poll_fn;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// ECONNRESET of errno(3).
const RESET: Errno = Errno(104);

/// Receives `len` bytes in a task of its own, then counts.
fn expect_bytes(handle: &Handle, stream: Stream, len: usize, done: &Counter) {
    let done = done.clone();
    handle.spawn(async move {
        let mut receive = stream.receive();
        receive_len(&mut receive, len).await;
        done.add();
    });
}

/// Waits for bytes that never come; drops its receive when woken.
fn wait_for_ever(handle: &Handle, stream: Stream) -> ringway_runtime::TaskId {
    handle.spawn(async move {
        let mut receive = stream.receive();
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            let silent = receive.poll_next(context).is_pending();
            assert!(silent, "nothing was sent");
            if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    })
}

/// Trap 3: FIN is an end, and bytes come before it.
#[test]
fn an_orderly_end_comes_after_the_bytes() {
    run(SMALL, |handle| async move {
        let (stream, mut peer) = pair(&handle).await;
        let mut receive = stream.receive();
        peer.write_all(b"last words").expect("write");
        peer.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(receive_all(&mut receive).await, Ok(b"last words".to_vec()));
        assert!(matches!(receive.next().await, Ok(None)), "the end stays");
    });
}

/// Trap 3: a reset is ECONNRESET, and bytes queued in front of it are delivered first.
#[test]
fn a_reset_comes_after_the_bytes() {
    run(SMALL, |handle| async move {
        let (stream, mut peer) = pair(&handle).await;
        peer.write_all(b"last words").expect("write");
        reset(peer);
        let mut receive = stream.receive();
        assert_eq!(receive_len(&mut receive, 10).await, b"last words");
        assert_eq!(receive.next().await.map(|leases| leases.is_some()), Err(RESET));
        assert_eq!(
            receive.next().await.map(|leases| leases.is_some()),
            Err(RESET),
            "the error stays"
        );
    });
}

/// Trap 3: the kernel lets others run after a long completion, or after 32 of them, and then forgets a reset that it has
/// been told of already.
#[test]
fn a_reset_behind_long_completions_is_seen() {
    async fn reset_behind(handle: Handle, len: usize) {
        let (stream, peer) = pair(&handle).await;
        let peer = in_thread(move || write_and_return(peer, &vec![1; len])).await;
        reset(peer);
        let mut receive = stream.receive();
        // Of what did not fit the socket's buffer, the reset took the place.
        let mut got = 0;
        let error = loop {
            match receive.next().await {
                Ok(Some(leases)) => got += leases.bytes() as usize,
                Ok(None) => panic!("an orderly end"),
                Err(errno) => break errno,
            }
        };
        assert!(got >= len.min(50_000), "{got} bytes of {len}");
        assert_eq!(error, RESET, "{len} bytes");
    }
    for len in [16_384, 65_536, 200_000, 1_000_000] {
        run(USUAL, move |handle| reset_behind(handle, len));
        run(TIGHT, move |handle| reset_behind(handle, len));
        run_without_bundles(USUAL, move |handle| reset_behind(handle, len));
    }
}

/// The same for the end of a UNIX socket.
#[test]
fn an_end_behind_long_completions_is_seen() {
    async fn end_behind(handle: Handle, path: PathBuf, len: usize) {
        let (socket, _) = socket::listen(&Address::Unix(path.clone()), &LISTEN).expect("a path that is free");
        let listener = handle.adopt_listener(socket);
        let client = in_thread(move || {
            let mut client = UnixStream::connect(path).expect("connect");
            client.write_all(&vec![1; len]).expect("write");
        });
        client.await;
        let stream = accept(&mut listener.accept()).await.expect("accept");
        assert_eq!(
            receive_all(&mut stream.receive()).await.map(|bytes| bytes.len()),
            Ok(len)
        );
    }
    let path = std::env::temp_dir().join(format!("ringway-runtime-end-{}", std::process::id()));
    for len in [16_384, 50_000, 65_536, 150_000] {
        for bundles in [true, false] {
            let there = path.clone();
            let test = move |handle| end_behind(handle, there, len);
            if bundles {
                run(TIGHT, test)
            } else {
                run_without_bundles(TIGHT, test)
            }
            std::fs::remove_file(&path).expect("the socket's path");
        }
    }
}

/// Traps 1 and 2: when the ring runs empty in the middle of a burst, the kernel ends the receive, once with bytes and
/// once without (ENOBUFS). Both must go on when buffers are back.
#[test]
fn a_receive_ended_by_an_empty_ring_goes_on() {
    run(SMALL, |handle| async move {
        let wanted = Random::new(3).bytes(100 * 1024);
        let (stream, peer) = pair(&handle).await;
        let theirs = wanted.clone();
        // More than the ring holds is there before the receive starts.
        let peer = in_thread(move || write_and_return(peer, &theirs)).await;
        peer.shutdown(Shutdown::Write).expect("shutdown");
        let mut receive = stream.receive();
        let (mut got, mut held) = (Vec::new(), handle.no_leases());
        while let Some(leases) = receive.next().await.expect("receive") {
            held.append(leases);
            if handle.buffers().0 == 0 {
                until(|| handle.stats().readers_starved == 1).await;
                held.slices().for_each(|slice| got.extend_from_slice(slice));
                held.advance(held.bytes());
            }
        }
        held.slices().for_each(|slice| got.extend_from_slice(slice));
        assert_same(&got, &wanted, "through 16 buffers of 1 KiB");
        assert_eq!(
            handle.stats().buffers_dry,
            6,
            "100 KiB are six times the ring and a rest"
        );
    });
}

/// Trap 1: 64 senders, 16 buffers; everybody gets their bytes and nothing spins.
#[test]
fn everybody_gets_their_bytes_from_a_dry_ring() {
    const SENDERS: usize = 64;
    const BYTES: usize = 20_000;
    run(SMALL, |handle| async move {
        let (held, _stream, _receive) = all_buffers(&handle).await;
        let done = Counter::default();
        let mut peers = Vec::new();
        for _ in 0..SENDERS {
            let (stream, peer) = pair(&handle).await;
            peers.push(in_thread(move || write_and_return(peer, &[7; BYTES])).await);
            expect_bytes(&handle, stream, BYTES, &done);
        }
        until(|| handle.stats().readers_starved == SENDERS as u64 + 1).await;
        let before = handle.stats();
        drop(held);
        done.reaches(SENDERS).await;
        let after = handle.stats();
        let turns = after.turns - before.turns;
        println!("{turns} turns, dry {} times", after.buffers_dry - before.buffers_dry);
        // Every turn moves at least one buffer, and everybody has 20 of them. One that moves none would spin.
        assert!(turns <= 64 * 20, "{turns} turns");
    });
}

/// Trap 1: while nobody gives a buffer back, the readers that wait for one cost no turns.
#[test]
fn a_dry_ring_does_not_spin() {
    run(SMALL, |handle| async move {
        let (held, _stream, _receive) = all_buffers(&handle).await;
        let (stream, mut peer) = pair(&handle).await;
        peer.write_all(b"hello").expect("write");
        let mut receive = stream.receive();
        while handle.stats().readers_starved < 2 {
            assert!(at_once(&mut receive).await.is_none());
            one_turn().await;
        }
        let before = handle.stats();
        handle.sleep(Duration::from_millis(200)).await;
        let turns = handle.stats().turns - before.turns;
        assert!(turns <= 5, "{turns} turns in 200 ms of waiting");
        drop(held);
        assert_eq!(receive_len(&mut receive, 5).await, b"hello");
    });
}

/// Readers without bytes do not use up the turns of those that have some, when buffers come back.
#[test]
fn idle_readers_do_not_starve_those_behind_them() {
    run(SMALL, |handle| async move {
        let (held, _stream, _receive) = all_buffers(&handle).await;
        let mut idle = Vec::new();
        for _ in 0..40 {
            let (stream, peer) = pair(&handle).await;
            idle.push((wait_for_ever(&handle, stream), peer));
        }
        let done = Counter::default();
        let mut peers: Vec<TcpStream> = Vec::new();
        for _ in 0..10 {
            let (stream, mut peer) = pair(&handle).await;
            peer.write_all(b"hello").expect("write");
            expect_bytes(&handle, stream, 5, &done);
            peers.push(peer);
        }
        until(|| handle.stats().readers_starved == 51).await;
        drop(held);
        done.reaches(10).await;
        idle.iter().for_each(|(task, _)| handle.wake(*task));
    });
}

/// Readers that gave up while they waited for buffers do not use up the turns of the others.
#[test]
fn readers_that_gave_up_do_not_starve_those_behind_them() {
    run(SMALL, |handle| async move {
        let (held, _stream, _receive) = all_buffers(&handle).await;
        let mut gone = Vec::new();
        for _ in 0..40 {
            let (stream, peer) = pair(&handle).await;
            gone.push((wait_for_ever(&handle, stream), peer));
        }
        until(|| handle.stats().readers_starved == 41).await;
        let done = Counter::default();
        let (stream, mut peer) = pair(&handle).await;
        peer.write_all(b"hello").expect("write");
        expect_bytes(&handle, stream, 5, &done);
        until(|| handle.stats().readers_starved == 42).await;
        gone.iter().for_each(|(task, _)| handle.wake(*task));
        until(|| handle.stats().tasks == 2).await;
        drop(held);
        done.reaches(1).await;
    });
}

/// Trap 12: a receive that is stopped and started again and again during a transfer loses, repeats and swaps nothing.
#[test]
fn pauses_keep_the_stream_intact() {
    for buffers in [SMALL, TIGHT, USUAL] {
        run(buffers, |handle| async move {
            let (stream, mut peer) = pair(&handle).await;
            let enough = Arc::new(AtomicBool::new(false));
            let stop = enough.clone();
            let writer = in_thread(move || {
                let mut random = Random::new(12);
                let mut written = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let len = 1 + random.below(3_000);
                    let piece = random.bytes(len);
                    peer.write_all(&piece).expect("write");
                    written.extend_from_slice(&piece);
                    std::thread::yield_now();
                }
                peer.shutdown(Shutdown::Write).expect("shutdown");
                written
            });
            let mut receive = stream.receive();
            let mut got = pause_and_resume(&mut receive, 300).await;
            enough.store(true, Ordering::Relaxed);
            got.extend(receive_all(&mut receive).await.expect("an orderly end"));
            assert_same(&got, &writer.await, "with pauses");
        });
    }
}

/// What comes during so many pauses.
async fn pause_and_resume(receive: &mut Receive, cycles: usize) -> Vec<u8> {
    let mut random = Random::new(13);
    let mut got = Vec::new();
    for _ in 0..cycles {
        receive.pause();
        // 0: the cancel and the new start meet in one submission.
        for _ in 0..random.below(3) {
            one_turn().await;
        }
        receive.resume();
        one_turn().await;
        while let Some(said) = at_once(receive).await {
            let leases = said.expect("receive").expect("no end yet");
            leases.slices().for_each(|slice| got.extend_from_slice(slice));
        }
        // Every third cycle something must have come: a receive that stayed deaf would hang here.
        if random.below(3) == 0 {
            let leases = receive.next().await.expect("receive").expect("no end yet");
            leases.slices().for_each(|slice| got.extend_from_slice(slice));
        }
    }
    got
}

/// A paused receive really stops: the peer is held back by what the sockets hold.
#[test]
fn a_paused_receive_holds_the_peer_back() {
    run(USUAL, |handle| async move {
        let (stream, peer) = pair(&handle).await;
        let mut receive = stream.receive();
        one_turn().await;
        receive.pause();
        two_turns().await;
        peer.set_nonblocking(true).expect("fcntl");
        let mut written = 0;
        let full = loop {
            match (&peer).write(&[1; 65_536]) {
                Ok(n) => written += n,
                Err(error) => break error,
            }
            one_turn().await;
        };
        assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(handle.stats().buffers_out, 0, "received although paused");
        assert!(at_once(&mut receive).await.is_none());
        receive.resume();
        receive_len(&mut receive, written).await;
    });
}

/// Trap 25: a bundle's buffers are known when its completion is reaped, however late its task looks.
#[test]
fn bundles_that_are_looked_at_late_are_exact() {
    run(TIGHT, |handle| async move {
        let done = Counter::default();
        let mut writers = Vec::new();
        for n in 0..12_u64 {
            let (stream, mut peer) = pair(&handle).await;
            let done = done.clone();
            writers.push(in_thread(move || {
                peer.write_all(&Random::new(n).bytes(120_000)).expect("write");
                peer.shutdown(Shutdown::Write).expect("shutdown");
            }));
            handle.spawn(async move {
                let mut random = Random::new(100 + n);
                let mut receive = stream.receive();
                let mut got = Vec::new();
                let mut queue = Vec::new();
                while let Some(leases) = receive.next().await.expect("receive") {
                    queue.push(leases);
                    // Looks now, or after some turns in which others move buffers through the ring.
                    for _ in 0..random.below(4) {
                        one_turn().await;
                    }
                    queue
                        .drain(..)
                        .for_each(|leases| leases.slices().for_each(|slice| got.extend_from_slice(slice)));
                }
                assert_same(&got, &Random::new(n).bytes(120_000), &format!("connection {n}"));
                done.add();
            });
        }
        for writer in writers {
            writer.await;
        }
        done.reaches(12).await;
    });
}

/// A receive that is to happen once brings what was asked for, whole buffers of it, and stops; however small the amount,
/// the ring's entries stay as long as their buffers (some kernels shorten them, and leave them so if nothing came).
#[test]
fn receiving_once_brings_what_was_asked_for() {
    run(TIGHT, |handle| async move {
        let size = handle.buffer_size();
        let wanted = Random::new(61).bytes(300_000);
        let (stream, peer) = pair(&handle).await;
        let theirs = wanted.clone();
        let mut receive = stream.receive();
        receive.pause();
        until(|| receive.is_paused()).await;
        let peer = in_thread(move || write_and_return(peer, &theirs)).await;
        let mut got = Vec::new();
        for (asked, most) in [
            (1, size),
            (size, size),
            (size + 1, size),
            (5 * size, 5 * size),
            (u32::MAX, 16 * size),
        ] {
            receive.resume_once(asked);
            let leases = receive.next().await.expect("receive").expect("bytes");
            assert!(leases.bytes() <= most, "{} bytes instead of {most}", leases.bytes());
            assert!(receive.is_paused(), "asked for {asked} bytes");
            leases.slices().for_each(|slice| got.extend_from_slice(slice));
            drop(leases);
            two_turns().await;
            assert!(at_once(&mut receive).await.is_none(), "more came than was asked for");
        }
        // The end finds no byte while a small amount is asked for.
        receive.resume_once(1);
        while let Some(leases) = receive.next().await.expect("receive") {
            leases.slices().for_each(|slice| got.extend_from_slice(slice));
            if got.len() == wanted.len() {
                peer.shutdown(Shutdown::Write).expect("shutdown");
            }
            receive.resume_once(1);
        }
        assert_same(&got, &wanted, "in pieces");
        let (stream, mut peer) = pair(&handle).await;
        peer.write_all(&wanted[..60_000]).expect("write");
        let got = receive_len(&mut stream.receive(), 60_000).await;
        assert_same(&got, &wanted[..60_000], "through the same buffers");
    });
}

/// The first receive of a stream may be one that stops by itself, and goes on for ever later.
#[test]
fn a_stream_may_begin_with_receiving_once() {
    run(TIGHT, |handle| async move {
        let wanted = Random::new(67).bytes(50_000);
        let (stream, mut peer) = pair(&handle).await;
        let mut receive = stream.receive_once(1);
        assert!(!receive.is_paused());
        peer.write_all(&wanted).expect("write");
        let first = receive.next().await.expect("receive").expect("bytes");
        assert_eq!(first.bytes(), handle.buffer_size(), "one buffer");
        assert!(receive.is_paused());
        two_turns().await;
        assert!(at_once(&mut receive).await.is_none(), "more came than was asked for");
        let mut got = Vec::new();
        first.slices().for_each(|slice| got.extend_from_slice(slice));
        drop(first);
        receive.resume();
        got.extend(receive_len(&mut receive, wanted.len() - got.len()).await);
        assert_same(&got, &wanted, "once, then for ever");
    });
}

/// Changes of mind between receiving once, for ever and not at all, at any moment, lose and repeat nothing.
#[test]
fn changes_between_once_and_for_ever_keep_the_stream_intact() {
    run(TIGHT, |handle| async move {
        let wanted = Random::new(71).bytes(2_000_000);
        let (stream, peer) = pair(&handle).await;
        let theirs = wanted.clone();
        let writer = in_thread(move || {
            let peer = write_and_return(peer, &theirs);
            peer.shutdown(Shutdown::Write).expect("shutdown");
        });
        let mut random = Random::new(72);
        let mut receive = stream.receive();
        let mut got = Vec::new();
        'stream: loop {
            match random.below(5) {
                0 => receive.pause(),
                1 => receive.resume(),
                2 => receive.resume_once(random.below(50_000) as u32),
                3 => {
                    receive.pause();
                    receive.resume_once(random.below(50_000) as u32);
                }
                _ => one_turn().await,
            }
            loop {
                match at_once(&mut receive).await {
                    Some(Ok(Some(leases))) => leases.slices().for_each(|slice| got.extend_from_slice(slice)),
                    Some(Ok(None)) => break 'stream,
                    Some(Err(errno)) => panic!("{errno}"),
                    None => break,
                }
            }
        }
        assert_same(&got, &wanted, "with changes of mind");
        writer.await;
    });
}
