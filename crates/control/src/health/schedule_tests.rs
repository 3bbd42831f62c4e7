use super::*;

#[tokio::test]
async fn a_probe_that_panics_counts_for_nothing_and_ends() {
    let outcome = contained(async { panic!("on purpose") }).await;
    assert!(matches!(outcome, Err(ProbeError::Local(_))), "{outcome:?}");
    assert_eq!(contained(async { Ok("well".to_owned()) }).await, Ok("well".to_owned()));
}

/// A standstill in the middle of a probe's time is seen, although the probe itself is not late at all.
#[tokio::test]
async fn a_standstill_is_seen() {
    let standstill = async {
        sleep(Duration::from_millis(20)).await;
        std::thread::sleep(Duration::from_millis(200));
    };
    let probe = sleep(Duration::from_millis(400));
    let both = async { tokio::join!(probe, standstill) };
    let (_, longest) = watched(both, Duration::from_millis(50)).await;
    assert!(longest >= Duration::from_millis(150), "{longest:?}");
}
