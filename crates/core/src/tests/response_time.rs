use super::{Bed, NOW, client, hold};
use crate::balance::response_time::{FORGOTTEN, HALF_LIFE};
use crate::balance::{Choice, Selector, Tried};
use crate::model::{BackendIndex, Balance, HashAlgorithm};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

fn bed(weights: &[u16]) -> Bed {
    Bed::new(Balance::LeastResponseTime, HashAlgorithm::Rendezvous, weights)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn open(selector: &Selector, now: Duration) -> Choice {
    selector
        .choose(client(0), &Tried::default(), now)
        .expect("one is usable")
}

/// Clients that ask again as soon as they are answered, in virtual time.
struct Simulation {
    bed: Bed,
    selector: Selector,
    now: Duration,
    /// What each backend takes to answer; whoever is asked anew takes this.
    times: Vec<Duration>,
    /// (when it is answered, number of the question).
    answers: BinaryHeap<Reverse<(Duration, usize)>>,
    /// By number: when it was asked, of whom.
    asked: Vec<Option<(Duration, Choice)>>,
}

impl Simulation {
    fn new(clients: usize, times: &[Duration]) -> Self {
        let bed = bed(&vec![1; times.len()]);
        let mut simulation = Self {
            selector: bed.selector(),
            bed,
            now: NOW,
            times: times.to_vec(),
            answers: BinaryHeap::new(),
            asked: Vec::new(),
        };
        (0..clients).for_each(|_| simulation.ask());
        simulation
    }

    fn ask(&mut self) {
        let choice = open(&self.selector, self.now);
        let time = self.times[choice.index.0];
        self.answers.push(Reverse((self.now + time, self.asked.len())));
        self.asked.push(Some((self.now, choice)));
    }

    /// Goes on for this long; how many were asked of each backend meanwhile.
    fn run(&mut self, length: Duration) -> Vec<u32> {
        let mut counts = vec![0; self.times.len()];
        let end = self.now + length;
        while let Some(&Reverse((at, number))) = self.answers.peek()
            && at < end
        {
            self.answers.pop();
            self.now = at;
            let (began, choice) = self.asked[number].take().expect("it is answered once");
            choice.reservation.backend().note_response(at - began, at);
            drop(choice);
            self.ask();
            let (_, chosen) = self
                .asked
                .last()
                .expect("just asked")
                .as_ref()
                .expect("not answered yet");
            counts[chosen.index.0] += 1;
        }
        self.now = end;
        counts
    }
}

#[test]
fn a_backend_five_times_slower_gets_less_than_a_third_of_the_others_share() {
    let mut simulation = Simulation::new(20, &[ms(10), ms(50), ms(10)]);
    simulation.run(Duration::from_secs(2));
    let counts = simulation.run(Duration::from_secs(30));
    println!("{counts:?}");
    assert!(counts[1] * 3 < counts[0].min(counts[2]), "{counts:?}");
    assert!(counts[1] > 0, "it is still measured: {counts:?}");
    let (a, b) = (f64::from(counts[0]), f64::from(counts[2]));
    assert!((a / b - 1.0).abs() < 0.05, "the two fast ones share alike: {counts:?}");
}

#[test]
fn a_backend_that_becomes_slow_is_left_within_a_few_answers() {
    let mut simulation = Simulation::new(20, &[ms(10); 3]);
    let before = simulation.run(Duration::from_secs(5));
    assert!(
        before.iter().all(|&count| count.abs_diff(before[0]) * 20 < before[0]),
        "{before:?}"
    );
    simulation.times[0] = ms(1_000);
    // Until its first slow answer only its connections count: it gets no more of them than its share of twenty.
    let until_told = simulation.run(ms(1_000));
    assert!(until_told[0] <= 20, "{until_told:?}");
    let after = simulation.run(Duration::from_secs(3));
    println!("{before:?} {until_told:?} {after:?}");
    assert!(after[0] <= 5, "{after:?}");
    assert!(after[1] + after[2] > 3_000, "{after:?}");
}

#[test]
fn a_backend_that_recovers_is_used_again_within_a_minute() {
    for slow in [ms(200), Duration::from_secs(20)] {
        let mut simulation = Simulation::new(20, &[ms(10), slow, ms(10)]);
        simulation.run(Duration::from_secs(25));
        simulation.times[1] = ms(10);
        // What is under way still takes as long as it takes.
        simulation.run(Duration::from_secs(60));
        let after = simulation.run(Duration::from_secs(10));
        assert!(after[1] * 5 > after[0] * 4, "after {slow:?}: {after:?}");
    }
}

/// Two clients only: their connections are too few to make the fast ones look slow, so that time alone brings it back.
#[test]
fn without_a_load_time_alone_brings_it_back() {
    let bed = bed(&[1, 1]);
    bed.states[0].note_response(Duration::from_secs(60), NOW);
    let selector = bed.selector();
    let ask = |now: Duration| {
        bed.states[1].note_response(ms(1), now);
        open(&selector, now).index.0
    };
    let early = (0..100).filter(|n| ask(NOW + ms(300 * n)) == 0).count();
    assert_eq!(early, 0, "60,000 times slower: half a minute is not enough");
    let late = (0..100).filter(|&n| ask(NOW + FORGOTTEN + ms(n)) == 0).count();
    assert_eq!(
        late, 50,
        "forgotten, it is taken for average, and of equals each has its turn"
    );
}

#[test]
fn a_backend_never_measured_is_neither_flooded_nor_starved() {
    // The third accepts and does not answer; the others take 10 ms.
    let mut simulation = Simulation::new(30, &[ms(10), ms(10), Duration::from_secs(3_600)]);
    simulation.run(Duration::from_secs(120));
    let open = simulation.bed.connections();
    assert!((8..=12).contains(&open[2]), "as many as the others, no more: {open:?}");
    // One that was fast and answers no more must not look faster for it.
    let mut simulation = Simulation::new(30, &[ms(10), ms(10), ms(1)]);
    simulation.run(Duration::from_secs(5));
    simulation.times[2] = Duration::from_secs(3_600);
    simulation.run(Duration::from_secs(5));
    let held = simulation.bed.connections()[2];
    let later = simulation.run(Duration::from_secs(120));
    assert!(held <= 28 && later[2] <= 5, "{held} at once, then {later:?}");
}

#[test]
fn a_backend_never_measured_gets_its_turn_among_measured_ones() {
    let bed = bed(&[1, 1, 1]);
    bed.states[0].note_response(ms(10), NOW);
    bed.states[1].note_response(ms(10), NOW);
    let _held = hold(&bed.selector(), 2, 300);
    // 10 ms are the average, so connections alone decide.
    assert_eq!(bed.connections(), [100, 100, 100]);
}

#[test]
fn connections_follow_speed_and_weight() {
    // 10 ms and 30 ms: 3 to 1. Weights 1 and 2 on top: 3 to 2.
    for (weights, expected) in [([1, 1], [75, 25]), ([1, 2], [60, 40])] {
        for threads in [1, 2] {
            let bed = bed(&weights);
            bed.states[0].note_response(ms(10), NOW);
            bed.states[1].note_response(ms(30), NOW);
            let _held = hold(&bed.selector(), threads, 100);
            let counts = bed.connections();
            assert!(
                counts
                    .iter()
                    .zip(expected)
                    .all(|(&count, expected)| count.abs_diff(expected) <= 1),
                "{weights:?}: {counts:?}"
            );
        }
    }
}

#[test]
fn without_measurements_it_is_least_connections() {
    let bed = bed(&[1, 2, 3]);
    let _held = hold(&bed.selector(), 2, 600);
    assert_eq!(bed.connections(), [100, 200, 300]);
}

#[test]
fn below_fifty_microseconds_all_are_equally_fast() {
    let bed = bed(&[1, 1]);
    bed.states[0].note_response(Duration::from_micros(2), NOW);
    bed.states[1].note_response(Duration::from_micros(40), NOW);
    let _held = hold(&bed.selector(), 1, 100);
    assert_eq!(bed.connections(), [50, 50]);
}

#[test]
fn peaks_count_at_once_and_fast_answers_slowly() {
    let state = &bed(&[1]).states[0];
    let time = |now| state.response_time(now).map(|time| time.as_millis());
    assert_eq!(time(NOW), None);
    state.note_response(ms(80), NOW);
    assert_eq!(time(NOW), Some(80));
    state.note_response(ms(160), NOW);
    assert_eq!(time(NOW), Some(160), "a peak");
    state.note_response(ms(80), NOW);
    assert_eq!(time(NOW), Some(150), "an eighth of the way back: 160 * 7 / 8 + 80 / 8");
    // After a half-life the past counts half.
    state.note_response(ms(50), NOW + HALF_LIFE);
    assert_eq!(time(NOW + HALF_LIFE), Some(100));
    assert_eq!(time(NOW + HALF_LIFE + FORGOTTEN - ms(1)), Some(100));
    assert_eq!(time(NOW + HALF_LIFE + FORGOTTEN), None, "forgotten");
}

#[test]
fn clocks_that_differ_a_little_do_not_forget_a_peak() {
    let state = &bed(&[1]).states[0];
    let time = |now| state.response_time(now).map(|time| time.as_millis());
    state.note_response(ms(800), NOW + ms(3));
    // A worker that has read its clock a moment before: the peak is now, not fifty days ago.
    state.note_response(ms(0), NOW);
    assert_eq!(time(NOW), Some(700));
    assert_eq!(time(NOW + ms(3)), Some(700));
}

#[test]
fn the_clock_of_an_average_may_wrap_and_one_of_last_month_is_old() {
    let state = &bed(&[1]).states[0];
    let wraps = ms(1 << 32);
    state.note_response(ms(800), wraps - ms(10));
    state.note_response(ms(0), wraps + ms(10));
    assert_eq!(state.response_time(wraps + ms(10)), Some(ms(700)));
    // 25 and 40 days later, which is more than half of the clock's range.
    for days in [1, 25, 40] {
        let later = wraps + Duration::from_secs(days * 86_400);
        assert_eq!(state.response_time(later), None, "{days} days");
    }
    state.note_response(ms(5), wraps + Duration::from_secs(25 * 86_400));
    let now = state.response_time(wraps + Duration::from_secs(25 * 86_400));
    assert_eq!(now, Some(ms(5)), "nothing of before is left");
}

#[test]
fn of_more_than_256_two_are_compared_and_the_unmeasured_are_not_flooded() {
    let bed = bed(&[1; 300]);
    // Half of them were never measured; the others are slow, as everything here may be.
    for state in &bed.states[..150] {
        state.note_response(ms(500), NOW);
    }
    let selector = bed.selector();
    assert!(selector.is_sampled());
    let _held = hold(&selector, 1, 6_000);
    let measured: u32 = bed.connections()[..150].iter().sum();
    // Two choices level connections, 20 each.
    assert!(measured.abs_diff(3_000) <= 150, "{measured}");
    assert!(bed.connections().iter().all(|&count| count <= 24));
}

#[test]
fn tried_and_full_backends_are_left_out() {
    let bed = bed(&[1, 1, 1]);
    bed.states[2].note_response(Duration::from_secs(9), NOW);
    bed.states[1].orders.set_connections_max(Some(0));
    let mut tried = Tried::default();
    tried.insert(BackendIndex(0));
    let choice = bed.selector().choose(client(0), &tried, NOW).expect("one is left");
    assert_eq!(choice.index, BackendIndex(2));
}
