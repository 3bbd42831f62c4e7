//! The TCP probe, and connecting, which all probes share.

use super::peers::{
    AMPLE, Scratch, ask, assert_passed, backend, check, check_within, drip, failed, fails_after, heard, refusing,
    reset, stay_silent, told, unix_backend, until_the_end,
};
use ringway_control::probe::Prober;
use ringway_core::model::{Address, HealthCheck, Probe, ProxyVersion, SendProxy};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixSocket, UnixStream};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_silent_backend_passes_after_a_while_and_sees_an_orderly_end() {
    let (tell, mut ends) = told();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move { drop(tell.send(until_the_end(&mut stream).await)) }
    });
    let address = address.await;
    let started = Instant::now();
    assert_passed(&ask(&check(Probe::Tcp), &address).await, "connected in ");
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(heard(&mut ends).await, Ok(vec![]));
}

#[tokio::test]
async fn a_timeout_shorter_than_the_wait_ends_the_wait_and_passes() {
    let address = backend(stay_silent).await;
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        assert_passed(&ask(&check_within(Probe::Tcp, 20), &address).await, "connected in ");
        shortest = shortest.min(started.elapsed());
    }
    assert!(shortest < Duration::from_millis(100), "{shortest:?}");
}

#[tokio::test]
async fn a_backend_that_speaks_first_passes_and_sees_an_orderly_end_whatever_it_said() {
    let (tell, mut ends) = told();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(&[b'x'; 20_000]).await.expect("there is room");
            let end = until_the_end(&mut stream).await;
            // Had the probe left bytes unread, a reset would have followed its end, and this would fail.
            let last_word = stream.write_all(b"bye").await.map_err(|error| error.to_string());
            drop(tell.send((end, last_word)));
        }
    });
    let address = address.await;
    assert_passed(&ask(&check(Probe::Tcp), &address).await, "connected in ");
    assert_eq!(heard(&mut ends).await, (Ok(vec![]), Ok(())));
}

#[tokio::test]
async fn a_byte_is_enough_even_if_the_end_follows() {
    let address = backend(|mut stream| async move { drop(stream.write_all(b"x").await) }).await;
    assert_passed(&ask(&check(Probe::Tcp), &address).await, "connected in ");
}

#[tokio::test]
async fn a_backend_that_never_closes_its_side_does_not_keep_the_probe() {
    let address = backend(|stream| drip(stream, b'x')).await;
    let started = Instant::now();
    assert_passed(&ask(&check(Probe::Tcp), &address).await, "connected in ");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_refused_connection_fails() {
    let (_held, address) = refusing();
    assert_eq!(ask(&check(Probe::Tcp), &address).await, failed("connection refused"));
}

#[tokio::test]
async fn an_end_right_after_accepting_fails() {
    let at_once = backend(|stream| async move { drop(stream) }).await;
    let later = backend(|stream| async move {
        sleep(Duration::from_millis(20)).await;
        drop(stream);
    });
    for address in [at_once, later.await] {
        assert_eq!(
            ask(&check(Probe::Tcp), &address).await,
            failed("ended by the backend within 100 ms")
        );
    }
}

#[tokio::test]
async fn a_reset_right_after_accepting_fails() {
    let address = backend(|stream| async move {
        // Later than the return of connect(2), or the error would be of connecting.
        sleep(Duration::from_millis(20)).await;
        reset(&stream);
    });
    assert_eq!(
        ask(&check(Probe::Tcp), &address.await).await,
        failed("reset by the backend within 100 ms")
    );
}

#[tokio::test]
async fn nobody_who_answers_connecting_fails_on_time() {
    let socket = TcpSocket::new_v4().expect("opens");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
    // Linux takes one more than asked for into the queue, then drops what comes (listen(2), tcp(7)).
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("is bound");
    let _first = TcpStream::connect(address).await.expect("there is room");
    let _second = TcpStream::connect(address).await.expect("there is room");
    let check = check_within(Probe::Tcp, 300);
    fails_after(
        300,
        &check,
        &Address::Inet(address),
        "no answer within 300ms while connecting",
    )
    .await;
}

#[tokio::test]
async fn another_port_is_asked_if_the_check_says_so() {
    let (_held, address) = refusing();
    let Address::Inet(inet) = backend(stay_silent).await else {
        unreachable!("backends listen on TCP")
    };
    let check = HealthCheck {
        port: Some(inet.port()),
        ..check(Probe::Tcp)
    };
    assert_passed(&ask(&check, &address).await, "connected in ");
}

#[tokio::test]
async fn unix_sockets_are_asked_too_whatever_the_port() {
    let address = unix_backend(|mut stream| async move { drop(until_the_end(&mut stream).await) });
    let check = HealthCheck {
        port: Some(1),
        ..check(Probe::Tcp)
    };
    assert_passed(&ask(&check, &address).await, "connected in ");
    let closing = unix_backend(|stream| async move { drop(stream) });
    assert_eq!(
        ask(&check, &closing).await,
        failed("ended by the backend within 100 ms")
    );
    let missing = Address::Unix(Scratch::new("sock").0.clone());
    assert_eq!(ask(&check, &missing).await, failed("there is no such socket"));
}

#[tokio::test]
async fn a_full_queue_of_a_unix_socket_is_waited_for() {
    let scratch = Scratch::new("sock");
    let socket = UnixSocket::new_stream().expect("opens");
    socket.bind(&scratch.0).expect("binds");
    let listener = socket.listen(0).expect("listens");
    let _first = UnixStream::connect(&scratch.0).await.expect("there is room");
    let address = Address::Unix(scratch.0.clone());
    let short = check_within(Probe::Tcp, 200);
    fails_after(200, &short, &address, "no answer within 200ms while connecting").await;

    let long = check(Probe::Tcp);
    let prober = Prober::new(&long, None).expect("can be prepared");
    let accept = async {
        sleep(Duration::from_millis(50)).await;
        let first = listener.accept().await.expect("the first");
        (first, listener.accept().await.expect("the probe"))
    };
    let both = async { tokio::join!(prober.run(&address, None), accept) };
    let (result, _streams) = timeout(AMPLE, both).await.expect("is bounded");
    assert_passed(&result, "connected in ");
}

#[tokio::test]
async fn a_dropped_probe_leaves_no_connection_behind() {
    let (tell, mut ends) = told();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            drop(tell.send(Ok(b"accepted".to_vec())));
            drop(tell.send(until_the_end(&mut stream).await));
        }
    });
    let address = address.await;
    let check = check(Probe::Tcp);
    let prober = Prober::new(&check, None).expect("can be prepared");
    tokio::select! {
        _ = prober.run(&address, None) => panic!("took 100 ms at least"),
        accepted = heard(&mut ends) => assert_eq!(accepted, Ok(b"accepted".to_vec())),
    }
    assert_eq!(heard(&mut ends).await, Ok(vec![]));
}

#[tokio::test]
async fn a_prober_may_be_shared_and_its_probes_spawned() {
    let address = backend(stay_silent).await;
    let prober = Arc::new(Prober::new(&check(Probe::Tcp), None).expect("can be prepared"));
    let probes: Vec<_> = (0..20)
        .map(|_| {
            let (prober, address) = (prober.clone(), address.clone());
            tokio::spawn(async move { prober.run(&address, None).await })
        })
        .collect();
    for probe in probes {
        let result = timeout(AMPLE, probe)
            .await
            .expect("is bounded")
            .expect("does not panic");
        assert_passed(&result, "connected in ");
    }
}

/// The bytes are those of proxy-protocol.txt: section 2.1 (UNKNOWN) and 2.2 (LOCAL, UNSPEC, no addresses).
#[tokio::test]
async fn a_backend_that_is_told_who_its_clients_are_is_told_that_a_probe_is_nobody() {
    const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Port {
        NotWritten,
        TheSame,
        Another,
    }
    for (version, port, expected) in [
        (ProxyVersion::V1, Port::NotWritten, b"PROXY UNKNOWN\r\n".as_slice()),
        (ProxyVersion::V2, Port::NotWritten, V2_LOCAL),
        (ProxyVersion::V2, Port::TheSame, V2_LOCAL),
        // What answers at another port is not the backend that expects it.
        (ProxyVersion::V2, Port::Another, b""),
    ] {
        let (tell, mut ends) = told();
        let address = backend(move |mut stream| {
            let tell = tell.clone();
            async move { drop(tell.send(until_the_end(&mut stream).await)) }
        });
        let address = address.await;
        let Address::Inet(inet) = &address else {
            unreachable!("a TCP socket")
        };
        let check = HealthCheck {
            port: (port != Port::NotWritten).then_some(inet.port()),
            ..check(Probe::Tcp)
        };
        let send = SendProxy {
            version,
            authority: true,
            alpn: true,
            unique_id: true,
            checksum: false,
            each_datagram: false,
        };
        let prober = Prober::new(&check, Some(send)).expect("can be prepared");
        let mut backend = *inet;
        if port == Port::Another {
            backend.set_port(1);
        }
        assert_passed(&prober.run(&Address::Inet(backend), None).await, "connected in ");
        assert_eq!(heard(&mut ends).await, Ok(expected.to_vec()), "{version:?} {port:?}");
    }
}
