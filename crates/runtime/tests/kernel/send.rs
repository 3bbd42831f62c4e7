//! Sending: short sends, order, what queued entries point to, and misuse that must stay harmless.

use crate::harness::*;
use ringway_runtime::{
    Address, BufferOptions, Errno, Handle, Leases, Once, SendOutcome, SocketOptions, Stream, Unsent,
};
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::task::Poll;

/// Entries of the driver's submission queue.
const SUBMISSIONS: usize = 1024;

/// `len` seeded bytes as they come from a connection: in pieces of the ring's buffers.
async fn leases_of(handle: &Handle, seed: u64, len: usize) -> (Leases, Vec<u8>) {
    let bytes = Random::new(seed).bytes(len);
    let (stream, mut peer) = pair(handle).await;
    peer.write_all(&bytes).expect("write");
    let mut receive = stream.receive();
    let mut leases = handle.no_leases();
    while (leases.bytes() as usize) < len {
        leases.append(receive.next().await.expect("receive").expect("bytes"));
    }
    (leases, bytes)
}

/// Queues `count` operations that complete at once.
fn fill_queue(stream: &Stream, count: usize) -> Vec<Once> {
    (0..count).map(|_| stream.writable()).collect()
}

/// Trap 15: what an entry points to must stay as it is until the entry is submitted, also when the entry is the one for
/// which a full queue had to be emptied.
#[test]
fn connects_behind_a_full_queue_keep_their_addresses() {
    run(USUAL, |handle| async move {
        let (stream, _peer) = pair(&handle).await;
        for queued in SUBMISSIONS - 2..=SUBMISSIONS + 1 {
            two_turns().await;
            let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind"));
            let waits = fill_queue(&stream, queued);
            let connecting = listeners.each_ref().map(|listener| {
                let address = Address::Inet(listener.local_addr().expect("bound"));
                handle
                    .connect(&address, None, &SocketOptions::default())
                    .expect("socket")
            });
            for (listener, connecting) in listeners.iter().zip(connecting) {
                let stream = connecting.await.expect("connect");
                let Address::Inet(peer) = stream.peer_address().expect("connected") else {
                    panic!("not inet")
                };
                assert_eq!(
                    peer,
                    listener.local_addr().expect("bound"),
                    "with {queued} entries queued"
                );
            }
            for wait in waits {
                wait.await.expect("writable");
            }
        }
    });
}

/// The same for the vectors and headers of sends.
#[test]
fn sends_behind_a_full_queue_keep_their_bytes() {
    run(USUAL, |handle| async move {
        let (filler, _peer) = pair(&handle).await;
        for queued in SUBMISSIONS - 2..=SUBMISSIONS + 1 {
            let (first, first_bytes) = leases_of(&handle, 1, 40_000).await;
            let (second, second_bytes) = leases_of(&handle, 2, 40_000).await;
            assert!(
                first.buffers() > 1 && second.buffers() > 1,
                "one piece alone needs no vectors"
            );
            let (one, one_peer) = pair(&handle).await;
            let (two, two_peer) = pair(&handle).await;
            two_turns().await;
            let waits = fill_queue(&filler, queued);
            let sends = [one.send(first, true), two.send(second, true)];
            for send in sends {
                assert!(matches!(send.await, SendOutcome::All));
            }
            assert_same(
                &read_len(one_peer, 40_000),
                &first_bytes,
                &format!("the first, {queued} entries queued"),
            );
            assert_same(
                &read_len(two_peer, 40_000),
                &second_bytes,
                &format!("the second, {queued} entries queued"),
            );
            drop(waits);
        }
    });
}

/// A caller's mistake ends the caller's task and leaves nothing behind: no operation that never completes.
#[test]
fn more_bytes_done_than_there_are_is_refused() {
    run(SMALL, |handle| async move {
        let (stream, _peer) = pair(&handle).await;
        handle.spawn(async move {
            drop(stream.send_bytes(Box::new([0; 4]), 5, false));
        });
        until(|| handle.stats().tasks_panicked == 1).await;
    });
}

/// Buffer numbers of one ring mean other bytes in another.
#[test]
fn leases_of_another_runtime_are_refused() {
    limited(|| {
        let (one, two) = (new_runtime(SMALL), new_runtime(SMALL));
        let handle = one.handle().clone();
        let (leases, _) = block_on(&one, async move { leases_of(&handle, 1, 2_000).await });
        let handle = two.handle().clone();
        block_on(&two, async move {
            let (stream, _peer) = pair(&handle).await;
            handle.spawn(async move {
                drop(stream.send(leases, false));
            });
            until(|| handle.stats().tasks_panicked == 1).await;
        });
        assert_quiet(&one);
        assert_quiet(&two);
    });
}

/// Sends until the kernel has no room.
async fn fill(stream: &Stream) -> (Unsent, usize) {
    let mut total = 0;
    loop {
        match stream.send_bytes(vec![b'f'; 256 * 1024].into(), 0, true).await {
            SendOutcome::All => total += 256 * 1024,
            SendOutcome::Full(Unsent::Bytes { bytes, sent }) => {
                total += sent as usize;
                return (Unsent::Bytes { bytes, sent }, total);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Trap 5: a send that fell short says how far it came; the rest goes out when there is room, and nothing twice.
#[test]
fn a_reader_that_stops_gets_the_rest_later() {
    run(USUAL, |handle| async move {
        let (stream, peer) = pair(&handle).await;
        let (mut rest, taken) = fill(&stream).await;
        let Unsent::Bytes { bytes, sent } = &rest else {
            unreachable!()
        };
        assert!((*sent as usize) < bytes.len(), "no room, yet everything was taken");
        let left = bytes.len() - *sent as usize;
        // Full stays full.
        let Unsent::Bytes { bytes, sent } = rest else {
            unreachable!()
        };
        match stream.send_bytes(bytes, sent, true).await {
            SendOutcome::Full(Unsent::Bytes { bytes, sent: again }) => {
                assert_eq!(again, sent);
                rest = Unsent::Bytes { bytes, sent };
            }
            other => panic!("{other:?}"),
        }
        let mut writable = stream.writable();
        assert!(poll_fn(|context| Poll::Ready(Pin::new(&mut writable).poll(context).is_pending())).await);
        let reader = in_thread(move || read_to_end(peer));
        writable.await.expect("room");
        send_rest(&stream, rest).await.expect("a reader");
        stream.shutdown_write().expect("connected");
        let got = reader.await;
        assert_eq!(got.len(), taken + left);
        assert!(got.iter().all(|byte| *byte == b'f'));
    });
}

/// The same with leases, silently, and with content: byte-exact over many short sends.
#[test]
fn short_sends_are_exact() {
    for silently in [false, true] {
        run(TIGHT, move |handle| async move {
            let wanted = Random::new(21).bytes(4 << 20);
            let (from, mut source) = pair(&handle).await;
            let (to, sink) = pair(&handle).await;
            socket2::SockRef::from(&sink)
                .set_recv_buffer_size(64 * 1024)
                .expect("setsockopt");
            let theirs = wanted.clone();
            let writer = in_thread(move || {
                source.write_all(&theirs).expect("write");
                drop(source);
            });
            let reader = in_thread(move || {
                let mut sink = sink;
                let mut got = Vec::new();
                let mut chunk = [0; 3_000];
                loop {
                    match sink.read(&mut chunk).expect("read") {
                        0 => return got,
                        n => got.extend_from_slice(&chunk[..n]),
                    }
                }
            });
            let mut receive = from.receive();
            while let Some(leases) = receive.next().await.expect("receive") {
                let sent = if silently {
                    send_all_silently(&to, leases).await
                } else {
                    send_all(&to, leases).await
                };
                sent.expect("send");
            }
            to.shutdown_write().expect("connected");
            assert_same(&reader.await, &wanted, &format!("silently: {silently}"));
            writer.await;
        });
    }
}

/// Trap 6: one send after the other on a connection keeps their order, also when each falls short.
#[test]
fn sends_keep_their_order() {
    run(USUAL, |handle| async move {
        let (stream, peer) = pair(&handle).await;
        let reader = in_thread(move || read_to_end(peer));
        let mut wanted = Vec::new();
        let mut random = Random::new(31);
        for _ in 0..300 {
            let len = 1 + random.below(40_000);
            let bytes = random.bytes(len);
            wanted.extend_from_slice(&bytes);
            send_rest(
                &stream,
                Unsent::Bytes {
                    bytes: bytes.into(),
                    sent: 0,
                },
            )
            .await
            .expect("send");
        }
        stream.shutdown_write().expect("connected");
        assert_same(&reader.await, &wanted, "300 sends");
    });
}

/// More pieces than one call takes: the rest comes back, also from a send that was to report nothing.
#[test]
fn pieces_beyond_one_send_come_back() {
    run(BufferOptions { count: 128, size: 64 }, |handle| async move {
        for report in [true, false] {
            let (leases, bytes) = leases_of(&handle, 5, 100 * 64).await;
            assert_eq!(leases.buffers(), 100);
            let (stream, peer) = pair(&handle).await;
            match stream.send(leases, report).await {
                SendOutcome::Full(Unsent::Leases(rest)) => {
                    assert_eq!((rest.buffers(), rest.bytes()), (36, 36 * 64));
                    send_all(&stream, rest).await.expect("send");
                }
                other => panic!("{other:?}"),
            }
            assert_same(&read_len(peer, bytes.len()), &bytes, "100 pieces");
        }
    });
}

/// Trap 5: after a reset, sends fail and give back what they could not send.
#[test]
fn sends_to_a_peer_that_reset_fail() {
    run(USUAL, |handle| async move {
        let (stream, peer) = pair(&handle).await;
        let (leases, bytes) = leases_of(&handle, 8, 5_000).await;
        reset(peer);
        // The reset has arrived once the socket is writable and broken.
        let mut receive = stream.receive();
        assert!(receive.next().await.is_err_and(|errno| errno.is_reset()));
        for report in [true, false] {
            let mut send = stream.send(handle.no_leases(), report);
            one_turn().await;
            drop(poll_fn(|context| Poll::Ready(send.poll_outcome(context))).await);
        }
        match stream.send(leases, true).await {
            SendOutcome::Failed(Unsent::Leases(rest), errno) => {
                assert!(errno.is_reset(), "{errno}");
                assert_same(
                    &rest.slices().flatten().copied().collect::<Vec<_>>(),
                    &bytes,
                    "what was not sent",
                );
            }
            other => panic!("{other:?}"),
        }
        stream
            .writable()
            .await
            .expect("a broken connection is writable: the next send tells");
        assert!(stream.shutdown_write().is_err());
    });
}

/// Trap 5: a reset in the middle of a transfer ends it, whatever the send said last.
#[test]
fn a_reset_during_a_transfer_ends_it() {
    run(USUAL, |handle| async move {
        for _ in 0..20 {
            let (stream, peer) = pair(&handle).await;
            let (rest, _) = fill(&stream).await;
            let resetter = in_thread(move || {
                read_len(&peer, 100_000);
                reset(peer);
            });
            let errno = send_rest_for_ever(&stream, rest).await;
            assert!(errno.is_reset(), "{errno}");
            resetter.await;
        }
    });
}

async fn send_rest(stream: &Stream, rest: Unsent) -> Result<(), Errno> {
    let mut rest = rest;
    loop {
        let outcome = match rest {
            Unsent::Leases(leases) => stream.send(leases, true).await,
            Unsent::Bytes { bytes, sent } => stream.send_bytes(bytes, sent, true).await,
        };
        rest = match outcome {
            SendOutcome::All => return Ok(()),
            SendOutcome::Failed(_, errno) => return Err(errno),
            SendOutcome::Full(rest) => rest,
        };
        stream.writable().await?;
    }
}

async fn send_rest_for_ever(stream: &Stream, rest: Unsent) -> Errno {
    let mut rest = rest;
    loop {
        if let Err(errno) = send_rest(stream, rest).await {
            return errno;
        }
        rest = Unsent::Bytes {
            bytes: vec![0; 100_000].into(),
            sent: 0,
        };
    }
}

/// Whoever drops a send and its stream still sends everything, then the end.
#[test]
fn a_dropped_send_still_sends() {
    run(SMALL, |handle| async move {
        for report in [true, false] {
            let (leases, bytes) = leases_of(&handle, 9, 9_000).await;
            let (stream, peer) = pair(&handle).await;
            drop(stream.send(leases, report));
            drop(stream);
            let got = in_thread(move || read_to_end(peer)).await;
            assert_same(&got, &bytes, "of a dropped send");
        }
    });
}

/// Traps 15 and 19: hundreds of sends of many pieces in one turn, more than the queues for headers and vectors hold.
#[test]
fn a_burst_of_sends_of_many_pieces_is_exact() {
    const STREAMS: usize = 300;
    run(BufferOptions { count: 8192, size: 256 }, |handle| async move {
        let mut ready = Vec::new();
        for n in 0..STREAMS {
            let (leases, bytes) = leases_of(&handle, n as u64, 20 * 256).await;
            let (stream, peer) = pair(&handle).await;
            ready.push((stream, leases, peer, bytes));
        }
        two_turns().await;
        let sent: Vec<_> = ready
            .into_iter()
            .map(|(stream, leases, peer, bytes)| (stream.send(leases, false), stream, peer, bytes))
            .collect();
        one_turn().await;
        for (n, (mut send, _stream, peer, bytes)) in sent.into_iter().enumerate() {
            let outcome = poll_fn(|context| Poll::Ready(send.poll_outcome(context))).await;
            assert!(matches!(outcome, Poll::Ready(SendOutcome::All)), "{outcome:?}");
            assert_same(&read_len(peer, bytes.len()), &bytes, &format!("connection {n}"));
        }
    });
}
