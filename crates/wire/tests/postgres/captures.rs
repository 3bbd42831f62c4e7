//! Captures of real programs.

use ringway_wire::postgres::{KeyWatch, Startup, Watched, read_startup};

/// How a watch over pieces of this size ends.
fn watched(server: &[u8], size: usize) -> Watched {
    let mut watch = KeyWatch::new();
    server
        .chunks(size)
        .map(|piece| watch.feed(piece))
        .find(|watched| *watched != Watched::More)
        .unwrap_or(Watched::More)
}

#[test]
fn the_key_of_a_session_is_the_one_that_cancels_it() {
    let session = include_bytes!("captures/cancelled.client");
    assert_eq!(read_startup(session), Ok(Some((Startup::Startup { len: 63 }, 0))));
    let request = include_bytes!("captures/cancel_request.client");
    let Ok(Some((Startup::Cancel(key), 16))) = read_startup(request) else {
        panic!("{:?}", read_startup(request));
    };
    for size in 1..=600 {
        let watched = watched(include_bytes!("captures/cancelled.server"), size);
        assert_eq!(watched, Watched::Key(key.clone()), "pieces of {size}");
    }
}

#[test]
fn tls_refused_then_a_password() {
    let client = include_bytes!("captures/scram.client");
    assert_eq!(read_startup(client), Ok(Some((Startup::SslRequest, 8))));
    assert_eq!(read_startup(&client[8..]), Ok(Some((Startup::Startup { len: 63 }, 0))));
    for size in 1..=700 {
        let watched = watched(include_bytes!("captures/scram.server"), size);
        assert!(matches!(watched, Watched::Key(_)), "pieces of {size}: {watched:?}");
    }
}

#[test]
fn a_wrong_password_gives_no_key() {
    for size in 1..=300 {
        assert_eq!(
            watched(include_bytes!("captures/wrong_password.server"), size),
            Watched::More
        );
    }
}
