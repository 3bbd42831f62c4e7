use super::*;
use std::cell::{Cell, RefCell};

/// Two workers on paper. Relays finish `relays_finish` after accepting stopped; a reset ends all at once unless `deaf`.
struct Paper {
    start: Instant,
    readiness: Readiness,
    steps: RefCell<Vec<(u128, &'static str, Phase)>>,
    stopped_at: Cell<Option<Instant>>,
    reset: Cell<bool>,
    relays_finish: Duration,
    dies_at: Duration,
    deaf: bool,
}

const NEVER: Duration = Duration::from_secs(1_000_000);

impl Paper {
    fn new(relays_finish: Duration) -> Self {
        Self {
            start: Instant::now(),
            readiness: Readiness::default(),
            steps: RefCell::default(),
            stopped_at: Cell::new(None),
            reset: Cell::new(false),
            relays_finish,
            dies_at: NEVER,
            deaf: false,
        }
    }

    fn step(&self, name: &'static str) {
        self.steps
            .borrow_mut()
            .push((self.start.elapsed().as_millis(), name, self.readiness.phase()));
    }
}

impl Fleet for Paper {
    fn stop_accepting(&self) {
        self.step("stop accepting");
        self.stopped_at.set(self.stopped_at.get().or(Some(Instant::now())));
    }

    fn reset_relays(&self) {
        self.step("reset");
        self.reset.set(true);
    }

    fn ended(&self) -> Option<usize> {
        (self.start.elapsed() >= self.dies_at).then_some(1)
    }

    fn all_ended(&self) -> bool {
        let finished = self
            .stopped_at
            .get()
            .is_some_and(|at| at.elapsed() >= self.relays_finish);
        finished || (self.reset.get() && !self.deaf)
    }

    fn relays(&self) -> u64 {
        3
    }
}

/// Signals at their milliseconds; tells how and when it ended.
async fn run(paper: &Paper, delay_ms: u64, timeout_ms: u64, signals: &[(u64, Signal)]) -> (Ended, u128) {
    let (sender, mut receiver) = mpsc::channel(8);
    let script = signals.to_vec();
    let start = paper.start;
    tokio::spawn(async move {
        for (at, signal) in script {
            tokio::time::sleep_until(start + Duration::from_millis(at)).await;
            sender.send(signal).await.expect("somebody listens");
        }
        std::future::pending::<()>().await;
    });
    paper.readiness.enter(Phase::Ready);
    let times = DrainTimes {
        delay: Duration::from_millis(delay_ms),
        timeout: Duration::from_millis(timeout_ms),
    };
    let ended = serve_until_ended(paper, &mut receiver, &paper.readiness, times).await;
    (ended, paper.start.elapsed().as_millis())
}

const TERM: Signal = Signal::Stop("SIGTERM");
const INT: Signal = Signal::Stop("SIGINT");
const MS: fn(u64) -> Duration = Duration::from_millis;

#[tokio::test(start_paused = true)]
async fn readiness_turns_first_then_accepting_stops_then_relays_finish() {
    let paper = Paper::new(MS(2_000));
    let (ended, at) = run(&paper, 3_000, 30_000, &[(1_000, TERM)]).await;
    assert_eq!(ended, Ended::Asked);
    assert_eq!(*paper.steps.borrow(), [(4_000, "stop accepting", Phase::Draining)]);
    assert!((6_000..=6_010).contains(&at), "ended at {at}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_is_reset_at_the_deadline() {
    let paper = Paper::new(NEVER);
    let (ended, at) = run(&paper, 0, 30_000, &[(0, INT)]).await;
    assert_eq!(ended, Ended::Asked);
    let steps: Vec<_> = paper.steps.borrow().iter().map(|step| (step.0, step.1)).collect();
    assert_eq!(
        steps,
        [(0, "stop accepting"), (30_000, "stop accepting"), (30_000, "reset")]
    );
    assert_eq!(at, 30_000);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_resets_at_once_also_during_the_delay() {
    for (delay, second) in [(0, 5_000), (10_000, 4_000)] {
        let paper = Paper::new(NEVER);
        let (ended, at) = run(&paper, delay, 30_000, &[(0, TERM), (second, INT)]).await;
        assert_eq!((ended, u64::try_from(at).expect("fits")), (Ended::Asked, second));
        assert!(paper.reset.get());
    }
}

#[tokio::test(start_paused = true)]
async fn hangup_changes_nothing() {
    let paper = Paper::new(MS(0));
    let hangup = Signal::Hangup;
    let (ended, at) = run(
        &paper,
        1_000,
        30_000,
        &[(0, hangup), (100, hangup), (200, TERM), (300, hangup)],
    )
    .await;
    assert_eq!((ended, at), (Ended::Asked, 1_200));
    assert!(!paper.reset.get());
}

#[tokio::test(start_paused = true)]
async fn a_dead_worker_ends_the_process_at_once() {
    let paper = Paper {
        dies_at: MS(10_100),
        ..Paper::new(NEVER)
    };
    let (ended, at) = run(&paper, 5_000, 30_000, &[]).await;
    assert_eq!(ended, Ended::WorkerDied(1));
    assert!((10_100..=10_350).contains(&at), "noticed at {at}");
    let steps: Vec<_> = paper.steps.borrow().iter().map(|step| (step.1, step.2)).collect();
    assert_eq!(steps, [("stop accepting", Phase::Draining), ("reset", Phase::Draining)]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_during_the_delay_is_no_success() {
    let paper = Paper {
        dies_at: MS(500),
        ..Paper::new(NEVER)
    };
    let (ended, _) = run(&paper, 1_000, 30_000, &[(0, TERM)]).await;
    assert_eq!(ended, Ended::WorkerDied(1));
}

#[tokio::test(start_paused = true)]
async fn workers_that_do_not_end_after_a_reset_hold_the_exit_for_less_than_a_second() {
    let paper = Paper {
        deaf: true,
        ..Paper::new(NEVER)
    };
    let (ended, at) = run(&paper, 0, 2_000, &[(0, TERM)]).await;
    assert_eq!(ended, Ended::Asked);
    assert!((2_700..2_800).contains(&at), "ended at {at}");
}
