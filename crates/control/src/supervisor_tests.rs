use super::*;

#[tokio::test]
async fn the_end_of_the_keeper_asks_for_a_drain_but_never_cuts_one_short() {
    let readiness = Readiness::default();
    let panics = || async { panic!("on purpose") };

    readiness.enter(Phase::Ready);
    let (sender, mut signals) = mpsc::channel(1);
    watch(panics(), sender, readiness.clone()).await;
    assert!(matches!(signals.recv().await, Some(Signal::Stop(_))));

    readiness.enter(Phase::Draining);
    let (sender, mut signals) = mpsc::channel(1);
    watch(panics(), sender, readiness).await;
    assert_eq!(signals.recv().await, None);
}
