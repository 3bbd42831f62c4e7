//! Sockets from their making to their closing.

use crate::harness::*;
use ringway_runtime::{Address, Errno, SendOutcome, SocketOptions, Source, socket};
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// ECANCELED of errno(3).
const CANCELED: Errno = Errno(125);

/// A receive kept longer than its stream says ECANCELED, and never reads from the connection that got the slot.
#[test]
fn a_receive_without_its_stream_reads_from_nobody_else() {
    run(SMALL, |handle| async move {
        let (stream, _peer) = pair(&handle).await;
        let mut receive = stream.receive();
        one_turn().await;
        receive.pause();
        two_turns().await;
        drop(stream);
        let (other, mut other_peer) = pair(&handle).await;
        other_peer.write_all(b"secret").expect("write");
        receive.resume();
        assert_eq!(receive.next().await.map(|leases| leases.is_some()), Err(CANCELED));
        assert_eq!(receive_len(&mut other.receive(), 6).await, b"secret");
    });
}

/// The same when the kernel ends the receive of a stream that is gone: nothing is armed on a closed descriptor.
#[test]
fn a_receive_that_ran_dry_without_its_stream_is_cancelled() {
    run(SMALL, |handle| async move {
        let (held, _stream, _receive) = all_buffers(&handle).await;
        let (stream, _peer) = pair(&handle).await;
        let mut receive = stream.receive();
        one_turn().await;
        until(|| handle.stats().readers_starved == 2).await;
        drop(stream);
        drop(held);
        assert_eq!(receive.next().await.map(|leases| leases.is_some()), Err(CANCELED));
    });
}

/// Trap 13: dropping a stream of which everything was read ends it in order.
#[test]
fn a_dropped_stream_ends_in_order() {
    run(SMALL, |handle| async move {
        let (stream, mut peer) = pair(&handle).await;
        peer.write_all(b"question").expect("write");
        assert_eq!(receive_len(&mut stream.receive(), 8).await, b"question");
        send_all_of(&stream, b"answer").await;
        drop(stream);
        assert_eq!(in_thread(move || read_to_end(peer)).await, b"answer");
    });
}

/// Trap 13: aborting sends a reset, whatever was read; also with a receive under way, and from the connecting side.
#[test]
fn an_aborted_stream_ends_with_a_reset() {
    run(SMALL, |handle| async move {
        for (stream, mut peer) in [pair(&handle).await, connected(&handle).await] {
            peer.write_all(b"question").expect("write");
            let mut receive = stream.receive();
            assert_eq!(receive_len(&mut receive, 8).await, b"question");
            stream.abort();
            drop(receive);
            let error = in_thread(move || peer.read(&mut [0; 8]).expect_err("a reset")).await;
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// Half-close: the end in one direction leaves the other open.
#[test]
fn each_direction_ends_by_itself() {
    run(SMALL, |handle| async move {
        let (stream, peer) = pair(&handle).await;
        stream.shutdown_write().expect("connected");
        let peer = in_thread(move || {
            assert_eq!(read_to_end(&peer), b"");
            write_and_return(peer, b"still heard")
        })
        .await;
        let mut receive = stream.receive();
        assert_eq!(receive_len(&mut receive, 11).await, b"still heard");
        drop(peer);
        assert!(matches!(receive.next().await, Ok(None)));
    });
}

/// Trap 11: the end is sent when the last operation is over, not before and not never.
#[test]
fn a_stream_closes_when_its_last_operation_is_over() {
    run(SMALL, |handle| async move {
        let (stream, mut peer) = pair(&handle).await;
        let mut receive = stream.receive();
        two_turns().await;
        drop(stream);
        assert_eq!(handle.stats().sockets, 1, "closed with a receive in flight");
        peer.write_all(b"in flight").expect("a connection that is open");
        assert_eq!(receive_len(&mut receive, 9).await, b"in flight");
        drop(receive);
        assert_eq!(in_thread(move || read_to_end(peer)).await, b"");
        assert_eq!(handle.stats().sockets, 0);
    });
}

#[test]
fn unix_sockets_work_in_both_roles() {
    let directory = std::env::temp_dir().join(format!("ringway-runtime-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("socket");
    let there = path.clone();
    run(TIGHT, |handle| async move {
        let (socket, bound) = socket::listen(&Address::Unix(there.clone()), &LISTEN).expect("a path that is free");
        assert_eq!(bound, Address::Unix(there.clone()));
        let listener = handle.adopt_listener(socket);
        let mut accepting = listener.accept();
        let wanted = Random::new(41).bytes(700_000);
        let (path, theirs) = (there.clone(), wanted.clone());
        let client = in_thread(move || {
            let stream = UnixStream::connect(path).expect("connect");
            let writer = {
                let mut stream = stream.try_clone().expect("dup");
                std::thread::spawn(move || {
                    stream.write_all(&theirs).expect("write");
                    stream.shutdown(Shutdown::Write).expect("shutdown");
                })
            };
            let got = read_to_end(&stream);
            writer.join().expect("the writer");
            got
        });
        // Through the runtime twice: accepted, and connected to the listener's second connection.
        let front = Rc::new(accept(&mut accepting).await.expect("accept"));
        let connecting = handle
            .connect(&Address::Unix(there.clone()), None, &SocketOptions::default())
            .expect("socket");
        let back = Rc::new(connecting.await.expect("connect"));
        let echoing = accept(&mut accepting).await.expect("accept");
        assert_eq!(
            front.peer_address(),
            Ok(Address::Unix(PathBuf::new())),
            "a client without a path of its own"
        );
        assert_eq!(front.tcp_info(), None);
        let done = Counter::default();
        let counter = done.clone();
        handle.spawn(async move {
            echo(echoing, false).await.expect("a clean exchange");
            counter.add();
        });
        for (from, to) in [(front.clone(), back.clone()), (back, front)] {
            let counter = done.clone();
            handle.spawn(async move {
                pump(&from, &to).await.expect("a clean relay");
                counter.add();
            });
        }
        assert_same(&client.await, &wanted, "through UNIX sockets");
        done.reaches(3).await;
        drop((accepting, listener));
        two_turns().await;
        let refused = handle
            .connect(&Address::Unix(there.clone()), None, &SocketOptions::default())
            .expect("socket");
        assert!(refused.await.is_err_and(Errno::is_refused), "nobody listens");
        std::fs::remove_file(&there).expect("the socket's path");
        let missing = handle
            .connect(&Address::Unix(there), None, &SocketOptions::default())
            .expect("socket");
        assert!(missing.await.is_err_and(Errno::is_refused), "no such path");
    });
    std::fs::remove_dir_all(&directory).expect("an empty directory");
}

#[test]
fn ipv6_works_in_both_roles() {
    run(SMALL, |handle| async move {
        let any = Address::Inet("[::1]:0".parse().expect("an address"));
        let (socket, bound) = socket::listen(&any, &LISTEN).expect("IPv6");
        let listener = handle.adopt_listener(socket);
        let mut accepting = listener.accept();
        let options = SocketOptions {
            no_delay: true,
            keepalive: None,
        };
        let source = "::1".parse().expect("an address");
        let connected = handle
            .connect(&bound, Some(Source::Own(source)), &options)
            .expect("socket")
            .await
            .expect("connect");
        let accepted = accept(&mut accepting).await.expect("accept");
        assert_eq!(accepted.local_address(), Ok(bound.clone()));
        assert_eq!(connected.local_address(), accepted.peer_address());
        assert_eq!(connected.peer_address(), Ok(bound));
        assert_eq!(inet(&accepted.peer_address().expect("connected")).ip(), source);
        assert!(!accepted.tcp_info().expect("TCP").closed);
        send_all_of(&connected, b"six").await;
        assert_eq!(receive_len(&mut accepted.receive(), 3).await, b"six");
    });
}

/// The kernel's state is CLOSE after either; what has arrived can still be read.
#[test]
fn a_connection_that_is_over_is_told_from_one_that_broke() {
    run(SMALL, |handle| async move {
        let (ended, mut peer) = connected(&handle).await;
        ended.shutdown_write().expect("shutdown");
        peer.write_all(b"last").expect("it is open");
        peer.shutdown(Shutdown::Write).expect("shutdown");
        until(|| ended.tcp_info().is_some_and(|info| info.closed)).await;
        assert!(!ended.tcp_info().expect("TCP").broken, "ended in order");
        let mut receive = ended.receive();
        assert_eq!(receive_len(&mut receive, 4).await, b"last");
        assert_eq!(receive_all(&mut receive).await, Ok(Vec::new()));

        for after_end in [false, true] {
            let (broken, mut peer) = connected(&handle).await;
            peer.write_all(b"last").expect("it is open");
            if after_end {
                broken.shutdown_write().expect("shutdown");
            }
            reset(peer);
            until(|| broken.tcp_info().is_some_and(|info| info.closed)).await;
            assert!(broken.tcp_info().expect("TCP").broken);
            let mut receive = broken.receive();
            assert_eq!(receive_len(&mut receive, 4).await, b"last", "looking takes nothing");
            let error = receive_all(&mut receive).await.expect_err("the reset is still told");
            assert!(error.is_reset(), "{error}");
        }
    });
}

#[test]
fn connecting_leaves_from_the_source_asked_for() {
    run(SMALL, |handle| async move {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = Address::Inet(listener.local_addr().expect("bound"));
        let source = "127.0.0.9".parse().expect("an address");
        let connecting = handle
            .connect(&address, Some(Source::Own(source)), &SocketOptions::default())
            .expect("socket");
        let _stream = connecting.await.expect("connect");
        assert_eq!(listener.accept().expect("accept").1.ip(), source);
        let foreign = "192.0.2.1".parse().expect("an address");
        let error = handle
            .connect(&address, Some(Source::Own(foreign)), &SocketOptions::default())
            .expect_err("not ours");
        assert!(error.is_local(), "{error}");
    });
}

/// 192.0.2.1 belongs to nobody (RFC 5737). What comes back is nobody's in this namespace, so only the socket is looked at.
#[test]
fn a_foreign_source_takes_a_capability() {
    run(SMALL, |handle| async move {
        let to = Address::Inet(([127, 0, 0, 1], 9).into());
        let foreign = Source::Foreign("192.0.2.1".parse().expect("an address"));
        let connecting = handle.connect(&to, Some(foreign), &SocketOptions::default());
        match (socket::can_be_transparent(false), connecting) {
            (Ok(()), connecting) => drop(connecting.expect("what can be tried out can be done")),
            (Err(errno), connecting) => {
                assert_eq!(errno, Errno(1), "EPERM");
                assert_eq!(connecting.map(drop), Err(errno));
            }
        }
    });
}

#[test]
fn a_refused_connect_says_so() {
    run(SMALL, |handle| async move {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = Address::Inet(listener.local_addr().expect("bound"));
        drop(listener);
        let connecting = handle
            .connect(&address, None, &SocketOptions::default())
            .expect("socket");
        assert_eq!(connecting.await.map(drop), Err(Errno(111)), "ECONNREFUSED");
    });
}

/// A connect that gets no answer goes away at once when it is dropped.
#[test]
fn an_unanswered_connect_can_be_given_up() {
    run(SMALL, |handle| async move {
        let (_listening, address) = full_backlog();
        let mut connecting = handle
            .connect(&Address::Inet(address), None, &SocketOptions::default())
            .expect("socket");
        two_turns().await;
        let pending = poll_fn(|context| Poll::Ready(Pin::new(&mut connecting).poll(context).is_pending())).await;
        assert!(pending, "the backlog was not full: this tests nothing");
        drop(connecting);
        until(|| handle.stats().sockets == 0).await;
    });
}

/// Stopping to accept loses nobody: what was accepted still comes, and what is queued can be taken.
#[test]
fn stopping_to_accept_loses_no_client() {
    run(SMALL, |handle| async move {
        let (listener, address) = listen(&handle);
        let mut accepting = listener.accept();
        two_turns().await;
        let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(address).expect("connect")).collect();
        accepting.stop();
        let mut streams = Vec::new();
        let ended = loop {
            match accept(&mut accepting).await {
                Ok(stream) => streams.push(stream),
                Err(errno) => break errno,
            }
        };
        assert_eq!(ended, CANCELED);
        clients.extend((0..10).map(|_| TcpStream::connect(address).expect("connect")));
        let empty = loop {
            match listener.accept_queued() {
                Ok(stream) => streams.push(stream),
                Err(errno) => break errno,
            }
        };
        assert_eq!((streams.len(), empty), (20, Errno::AGAIN));
        for stream in &streams {
            send_all_of(stream, b"hello").await;
        }
        clients
            .iter()
            .for_each(|client| assert_eq!(read_len(client, 5), b"hello"));
    });
}

/// An accept that is asked for one connection takes no other.
#[test]
fn accepting_one_leaves_the_others_in_the_queue() {
    run(SMALL, |handle| async move {
        let (listener, address) = listen(&handle);
        let _clients = [(); 3].map(|()| TcpStream::connect(address).expect("connect"));
        let mut one = listener.accept_one();
        let _first = accept(&mut one).await.expect("accept");
        assert_eq!(accept(&mut one).await.map(drop), Err(Errno::AGAIN));
        let _others = [
            listener.accept_queued().expect("queued"),
            listener.accept_queued().expect("queued"),
        ];
        assert_eq!(listener.accept_queued().map(drop), Err(Errno::AGAIN));
    });
}

/// Connections that were accepted for somebody who had gone are reset, not kept.
#[test]
fn connections_that_nobody_took_are_reset() {
    run(SMALL, |handle| async move {
        let (listener, address) = listen(&handle);
        let accepting = listener.accept();
        two_turns().await;
        let mut gathered = TcpStream::connect(address).expect("connect");
        two_turns().await;
        let mut racing = TcpStream::connect(address).expect("connect");
        drop((accepting, listener));
        two_turns().await;
        assert_eq!(handle.stats().sockets, 0);
        for client in [&mut gathered, &mut racing] {
            let error = client.read(&mut [0; 1]).expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// Trap 7: more completions at once than the queue holds are late, not lost. (The kernel runs at most 20 wake-ups per
/// call and a full submission queue is reaped each time, so the queue of 16,384 does not even overflow.)
#[test]
fn more_completions_than_the_queue_holds_all_come() {
    const WAITS: usize = 20_000;
    run(SMALL, |handle| async move {
        let (stream, peer) = pair(&handle).await;
        while let SendOutcome::All = stream.send_bytes(vec![0; 1 << 20].into(), 0, true).await {}
        let waits: Vec<_> = (0..WAITS).map(|_| stream.writable()).collect();
        two_turns().await;
        assert_eq!(handle.stats().operations, WAITS as u64 + 1);
        reset(peer);
        for wait in waits {
            wait.await.expect("a broken connection is writable");
        }
        println!("{:?}", handle.stats());
    });
}

#[test]
fn the_handshake_measures_a_round_trip() {
    run(SMALL, |handle| async move {
        let (stream, _peer) = connected(&handle).await;
        stream.bound_receive_buffer(1 << 20).expect("a TCP socket");
        let round_trip = stream.tcp_info().expect("TCP").round_trip_min;
        // Measured by the handshake; no machine is so busy.
        assert!(
            round_trip > Duration::ZERO && round_trip < Duration::from_secs(5),
            "{round_trip:?}"
        );
    });
}

#[test]
fn the_clock_of_a_thread_counts_its_own_work_only() {
    run(SMALL, |handle| async move {
        let before = handle.cpu_time();
        handle.sleep(Duration::from_millis(50)).await;
        let slept = handle.cpu_time();
        assert!(
            slept - before < Duration::from_millis(50),
            "{:?} of 50 ms asleep",
            slept - before
        );
        // Ends because time that this thread works is counted.
        while handle.cpu_time() - slept < Duration::from_millis(5) {}
    });
}
