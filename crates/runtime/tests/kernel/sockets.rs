//! Sockets from their making to their closing.

use crate::harness::*;
use ringway_runtime::Errno;
use std::io::Write;

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

