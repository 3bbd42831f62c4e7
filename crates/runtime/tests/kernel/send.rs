//! Sending: short sends, order, what queued entries point to, and misuse that must stay harmless.

use crate::harness::*;
use ringway_runtime::{Address, Handle, Leases, Once, SendOutcome, SocketOptions, Stream};
use std::io::Write;
use std::net::TcpListener;

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
                handle.connect(&address, None, &SocketOptions::default()).expect("socket")
            });
            for (listener, connecting) in listeners.iter().zip(connecting) {
                let stream = connecting.await.expect("connect");
                let Address::Inet(peer) = stream.peer_address().expect("connected") else { panic!("not inet") };
                assert_eq!(peer, listener.local_addr().expect("bound"), "with {queued} entries queued");
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
            assert!(first.buffers() > 1 && second.buffers() > 1, "one piece alone needs no vectors");
            let (one, one_peer) = pair(&handle).await;
            let (two, two_peer) = pair(&handle).await;
            two_turns().await;
            let waits = fill_queue(&filler, queued);
            let sends = [one.send(first, true), two.send(second, true)];
            for send in sends {
                assert!(matches!(send.await, SendOutcome::All));
            }
            assert_same(&read_len(one_peer, 40_000), &first_bytes, &format!("the first, {queued} entries queued"));
            assert_same(&read_len(two_peer, 40_000), &second_bytes, &format!("the second, {queued} entries queued"));
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
