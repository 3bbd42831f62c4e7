//! Bytes through many connections at once: exact whatever the ring's size, at one system call per turn.

use crate::harness::*;
use ringway_runtime::{Address, BufferOptions, Handle, SocketOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Echoes on every connection, each in a task of its own.
fn serve_echo(handle: &Handle, connections: usize, silently: bool) -> (SocketAddr, Counter) {
    let (listener, address) = listen(handle);
    let done = Counter::default();
    let (spawner, counter) = (handle.clone(), done.clone());
    handle.spawn(async move {
        let mut accepting = listener.accept();
        for _ in 0..connections {
            let stream = accept(&mut accepting).await.expect("accept");
            let counter = counter.clone();
            spawner.spawn(async move {
                echo(stream, silently).await.expect("a clean exchange");
                counter.add();
            });
        }
    });
    (address, done)
}

/// `connections` clients at once, `len` bytes each, in pieces up to `piece_max`.
async fn exchange_many(handle: Handle, connections: usize, len: usize, piece_max: usize, silently: bool) {
    let (address, done) = serve_echo(&handle, connections, silently);
    let clients: Vec<_> = (0..connections)
        .map(|n| in_thread(move || exchange(address, 0x1000 + n as u64, len, piece_max)))
        .collect();
    for client in clients {
        client.await;
    }
    done.reaches(connections).await;
}

fn echo_is_exact(buffers: BufferOptions, connections: usize, len: usize, piece_max: usize, silently: bool) {
    run(buffers, move |handle| async move {
        exchange_many(handle.clone(), connections, len, piece_max, silently).await;
        println!("{:?}", handle.stats());
    });
}

#[test]
fn echo_is_exact_with_16_buffers_of_1_kib() {
    echo_is_exact(SMALL, 24, 128 * 1024, 5_000, false);
}

#[test]
fn echo_is_exact_with_16_buffers_of_4_kib_and_silent_sends() {
    echo_is_exact(TIGHT, 24, 256 * 1024, 9_000, true);
}

#[test]
fn echo_is_exact_with_the_usual_buffers() {
    echo_is_exact(USUAL, 24, 1024 * 1024, 90_000, false);
}

#[test]
fn echo_is_exact_with_the_usual_buffers_and_silent_sends() {
    echo_is_exact(USUAL, 24, 1024 * 1024, 90_000, true);
}

/// Client, runtime, echoing runtime: four sockets for each connection on one ring.
fn relay_is_exact(buffers: BufferOptions, connections: usize, len: usize) {
    run(buffers, move |handle| async move {
        let (backend, backend_done) = serve_echo(&handle, connections, false);
        let (listener, address) = listen(&handle);
        let done = Counter::default();
        let clients: Vec<_> = (0..connections)
            .map(|n| in_thread(move || exchange(address, 0x2000 + n as u64, len, 7_000)))
            .collect();
        let mut accepting = listener.accept();
        for _ in 0..connections {
            let client = Rc::new(accept(&mut accepting).await.expect("accept"));
            let connecting = handle
                .connect(&Address::Inet(backend), None, &SocketOptions::default())
                .expect("socket");
            let backend = Rc::new(connecting.await.expect("connect"));
            for (from, to) in [(client.clone(), backend.clone()), (backend, client)] {
                let done = done.clone();
                handle.spawn(async move {
                    pump(&from, &to).await.expect("a clean relay");
                    done.add();
                });
            }
        }
        for client in clients {
            client.await;
        }
        done.reaches(2 * connections).await;
        backend_done.reaches(connections).await;
        println!("{:?}", handle.stats());
    });
}

#[test]
fn relay_is_exact_with_16_buffers_of_1_kib() {
    relay_is_exact(SMALL, 16, 96 * 1024);
}

#[test]
fn relay_is_exact_with_16_buffers_of_4_kib() {
    relay_is_exact(TIGHT, 16, 192 * 1024);
}

#[test]
fn relay_is_exact_with_the_usual_buffers() {
    relay_is_exact(USUAL, 16, 512 * 1024);
}

#[test]
fn relays_are_exact_without_bundles() {
    for (buffers, len) in [(TIGHT, 96 * 1024), (USUAL, 512 * 1024)] {
        run_without_bundles(buffers, move |handle| exchange_many(handle, 16, len, 7_000, true));
    }
}

#[test]
fn one_system_call_per_turn_under_load() {
    run(USUAL, |handle| async move {
        let (address, done) = serve_echo(&handle, 64, true);
        let clients: Vec<_> = (0..64)
            .map(|n| in_thread(move || ping_pong(address, n, 100, 300)))
            .collect();
        for client in clients {
            client.await;
        }
        done.reaches(64).await;
        let stats = handle.stats();
        println!("{stats:?}");
        assert!(stats.turns > 100, "too little happened to tell: {stats:?}");
        // A burst that overfills the submission queue costs one more call; this load has none.
        assert_eq!(stats.enters, stats.turns);
        assert_eq!(stats.overflows, 0);
    });
}

/// Small pieces across bundles: a lease held for long keeps its bytes while the ring's slots go round many times.
#[test]
fn a_lease_keeps_its_bytes_while_others_receive() {
    run(SMALL, |handle| async move {
        let (keeper, keeper_peer) = pair(&handle).await;
        let wanted = Random::new(7).bytes(3_000);
        let theirs = wanted.clone();
        in_thread(move || write_and_return(keeper_peer, &theirs)).await;
        let mut receive = keeper.receive();
        let mut held = receive.next().await.expect("receive").expect("bytes");
        while held.bytes() < 3_000 {
            held.append(receive.next().await.expect("receive").expect("bytes"));
        }
        // 13 of 16 buffers are left; ten times the ring's capacity goes through them.
        exchange_many(handle.clone(), 4, 160 * 1024, 3_000, false).await;
        let kept: Vec<u8> = held.slices().flatten().copied().collect();
        assert_same(&kept, &wanted, "the held lease");
        assert_eq!(
            held.buffers(),
            3,
            "3,000 bytes in one burst fill two buffers of 1 KiB and a part of a third"
        );
    });
}

/// Small exchanges go on beside senders that would take every buffer for ever.
#[test]
fn greedy_senders_do_not_starve_small_exchanges() {
    const GREEDY: usize = 8;
    run(SMALL, |handle| async move {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Counter::default();
        let mut floods = Vec::new();
        for _ in 0..GREEDY {
            let (stream, mut peer) = pair(&handle).await;
            let (stop, ended) = (stop.clone(), ended.clone());
            floods.push(in_thread(move || {
                while !stop.load(Ordering::Relaxed) {
                    peer.write_all(&[0; 100_000]).expect("write");
                }
            }));
            handle.spawn(async move {
                let mut receive = stream.receive();
                while receive.next().await.expect("receive").is_some() {}
                ended.add();
            });
        }
        until(|| handle.stats().buffers_dry > 100).await;
        let (address, done) = serve_echo(&handle, 8, false);
        let clients: Vec<_> = (0..8)
            .map(|n| in_thread(move || ping_pong(address, n, 30, 500)))
            .collect();
        for client in clients {
            client.await;
        }
        done.reaches(8).await;
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.await;
        }
        ended.reaches(GREEDY).await;
        println!("{:?}", handle.stats());
    });
}
