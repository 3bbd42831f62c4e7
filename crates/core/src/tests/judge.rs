use crate::health::{Cause, Change, Condition, Judge, Report, Rule};
use crate::model::Passive;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const RULE: Rule = Rule { fails: 3, passes: 2 };
const PASSIVE: Passive = Passive {
    fails: 1,
    eject: s(1),
    max_ejected: 100,
};

/// A judge, the moment, and a script of one letter per event; each event comes 10 ms after the one before.
///
/// `+` `-` a probe passed, failed; `x` a connect failed; `c` connected; `e` ended early; `a` answered; `.` nothing came;
/// `>` on to the deadline. `!x`: the same, but too many others are out already.
struct Case {
    judge: Judge,
    now: Duration,
    changes: Vec<Change>,
}

impl Case {
    fn new(rule: Option<Rule>, passive: Option<Passive>) -> Self {
        Self {
            judge: Judge::new(rule, passive, Duration::ZERO),
            now: Duration::ZERO,
            changes: Vec::new(),
        }
    }

    fn passive(fails: u32) -> Self {
        Self::new(None, Some(Passive { fails, ..PASSIVE }))
    }

    /// The letter of the condition after each event: `U`, `D`, `E`, or `T` while ejected and on trial.
    fn play(&mut self, script: &str) -> String {
        let mut events = script.chars();
        let mut conditions = String::new();
        while let Some(event) = events.next() {
            let may_eject = event != '!';
            let event = if may_eject { Some(event) } else { events.next() };
            self.now += Duration::from_millis(10);
            self.event(event.expect("an event follows"), may_eject);
            conditions.push(self.letter());
        }
        conditions
    }

    fn event(&mut self, event: char, may_eject: bool) {
        let before = self.judge.condition();
        let now = self.now;
        let change = match event {
            '+' => self.judge.probed(true, &"200 OK".into(), now),
            '-' => self.judge.probed(false, &"timed out".into(), now),
            'x' => self.judge.met(Report::ConnectFailed, may_eject, now),
            'c' => self.judge.met(Report::Connected, may_eject, now),
            'e' => self.judge.met(Report::EndedEarly, may_eject, now),
            'a' => self.judge.met(Report::Answered, may_eject, now),
            '.' => None,
            '>' => {
                self.now = self.judge.deadline().map_or(now, |deadline| deadline.max(now));
                None
            }
            other => panic!("no event: {other}"),
        };
        self.judge.tick(self.now);
        let after = self.judge.condition();
        match &change {
            Some(change) => assert_eq!((change.from, change.to), (before, after)),
            None => assert_eq!(before, after, "a change must be told"),
        }
        self.changes.extend(change);
    }

    fn letter(&self) -> char {
        match self.judge.condition() {
            Condition::Up => 'U',
            Condition::Down => 'D',
            Condition::Ejected if self.judge.is_on_trial() => 'T',
            Condition::Ejected => 'E',
            Condition::Draining => panic!("a judge does not know of draining"),
        }
    }

    /// How long the present ejection was to last when it began just now.
    fn out_for(&self) -> Duration {
        self.judge.deadline().expect("it is out") - self.now
    }
}

fn check(script: &str, rule: Rule, expected: &str) {
    let mut case = Case::new(Some(rule), Some(PASSIVE));
    assert_eq!(case.play(script), expected, "{script}");
}

#[test]
fn down_after_three_up_after_two() {
    check("+++---++", RULE, "UUUUUDDU");
}

#[test]
fn scripts_of_probes() {
    let once = Rule { fails: 1, passes: 1 };
    // Not yet probed.
    check("", RULE, "");
    check(".", RULE, "U");
    check("-", once, "D");
    check("---", RULE, "UUD");
    // Two failures are forgotten by one pass, as often as it likes.
    check("--+--+--+", RULE, "UUUUUUUUU");
    check("--+---", RULE, "UUUUUD");
    // And one pass by a failure while it is down.
    check("---+-+-++", RULE, "UUDDDDDDU");
    check("---++---++", RULE, "UUDDUUUDDU");
    check("-+-+-", once, "DUDUD");
    check("------", RULE, "UUDDDD");
}

#[test]
fn without_a_rule_probes_say_nothing() {
    let mut case = Case::new(None, Some(PASSIVE));
    assert_eq!(case.play("-----"), "UUUUU");
    assert_eq!(case.play("x+"), "EE");
}

#[test]
fn changes_name_their_cause() {
    let mut case = Case::new(Some(RULE), Some(PASSIVE));
    case.play("---++x>c");
    let told: Vec<_> = case
        .changes
        .iter()
        .map(|change| (change.from, change.to, change.cause, &*change.why))
        .collect();
    use Condition::{Down, Ejected, Up};
    assert_eq!(
        told,
        [
            (Up, Down, Cause::Probe, "timed out"),
            (Down, Up, Cause::Probe, "200 OK"),
            (
                Up,
                Ejected,
                Cause::Connects,
                "1 in a row could not be connected; out for 1s"
            ),
            (Ejected, Up, Cause::Trial, "a connection went well"),
        ]
    );
}

#[test]
fn a_standing_tells_since_when() {
    let mut case = Case::new(Some(RULE), Some(PASSIVE));
    assert_eq!(case.judge.standing(), (Duration::ZERO, Cause::Start, &"".into()));
    case.play("---");
    let down = Duration::from_millis(30);
    assert_eq!(case.judge.standing(), (down, Cause::Probe, &"timed out".into()));
    case.play("--");
    assert_eq!(case.judge.standing().0, down, "still the same");
}

#[test]
fn while_probes_are_about_to_change_it_they_are_worth_asking_more_often() {
    let mut case = Case::new(Some(RULE), None);
    let mut is_changing = |script: &str| {
        case.play(script);
        case.judge.is_changing()
    };
    assert!(!is_changing("+"));
    assert!(is_changing("-"));
    assert!(!is_changing("+"));
    assert!(is_changing("--"));
    assert!(!is_changing("-"));
    assert!(is_changing("+"));
    assert!(!is_changing("+"));
}

#[test]
fn failed_connects_in_a_row_eject() {
    assert_eq!(Case::passive(1).play("x"), "E");
    assert_eq!(Case::passive(3).play("xxx"), "UUE");
    assert_eq!(Case::passive(3).play("xxcxxcxx"), "UUUUUUUU");
    assert_eq!(Case::passive(3).play("xxaxxx"), "UUUUUE");
    // Two kinds are counted apart.
    assert_eq!(Case::passive(3).play("xexex"), "UUUUE");
    assert_eq!(Case::new(Some(RULE), None).play("xxxxxeeeee"), "UUUUUUUUUU");
}

#[test]
fn three_early_ends_in_a_row_eject_whatever_fails_says() {
    assert_eq!(Case::passive(1).play("eee"), "UUE");
    assert_eq!(Case::passive(5).play("eeeee"), "UUUUE");
    // It connects each time, which is no answer.
    assert_eq!(Case::passive(1).play("cecece"), "UUUUUE");
    assert_eq!(Case::passive(1).play("ceceacece"), "UUUUUUUUU");
}

#[test]
fn after_its_time_one_connection_tries_it() {
    let mut case = Case::passive(1);
    assert_eq!(case.play("x"), "E");
    assert!(!case.judge.is_usable());
    assert!(!case.judge.is_on_trial());
    // A moment before, nothing.
    case.now += s(1) - Duration::from_millis(11);
    assert_eq!(case.play("."), "E");
    assert_eq!(case.play("."), "T");
    assert!(case.judge.is_usable());
    assert!(case.judge.awaits_success());
    assert_eq!(case.judge.deadline(), None);
    assert_eq!(case.play("c"), "U");
    assert!(!case.judge.awaits_success());
}

#[test]
fn trials_by_what_they_try() {
    // A failed connect ends it, whatever it was ejected for.
    assert_eq!(Case::passive(3).play("xxx>x>c"), "UUETETU");
    assert_eq!(Case::passive(1).play("eee>x>c"), "UUETETU");
    // Ejected for early ends, connecting proves nothing; an answer does, another early end does the contrary.
    assert_eq!(Case::passive(1).play("eee>ca"), "UUETTU");
    assert_eq!(Case::passive(1).play("eee>ce>ca"), "UUETTETTU");
    // Ejected for connects, connecting is enough; then early ends count from nothing.
    assert_eq!(Case::passive(1).play("eex>ceee"), "UUETUUUE");
    // A trial of which an answer is heard first.
    assert_eq!(Case::passive(1).play("x>a"), "ETU");
}

#[test]
fn each_ejection_in_a_row_is_longer_up_to_thirty_seconds() {
    let mut case = Case::passive(1);
    let mut lasted = Vec::new();
    for _ in 0..33 {
        case.play("x");
        lasted.push(case.out_for().as_secs());
        case.play(">");
    }
    let expected: Vec<u64> = (1..=30).chain([30, 30, 30]).collect();
    assert_eq!(lasted, expected);
    assert_eq!(case.changes.len(), 1, "it has been ejected all the time");
    let seven = Passive { eject: s(7), ..PASSIVE };
    let forty = Passive {
        eject: s(40),
        ..PASSIVE
    };
    for (passive, expected) in [(seven, [7, 14, 21, 28, 30]), (forty, [40; 5])] {
        let mut case = Case::new(None, Some(passive));
        let lasted = expected.map(|_| {
            case.play("x");
            let lasted = case.out_for().as_secs();
            case.play(">");
            lasted
        });
        assert_eq!(lasted, expected);
    }
}

#[test]
fn flapping_grows_and_being_well_for_longer_than_it_was_out_starts_over() {
    let mut case = Case::passive(1);
    // Well again by a trial, and failing soon after, three times.
    assert_eq!(case.play("x>cx>cx"), "ETUETUE");
    assert_eq!(case.out_for(), s(3));
    case.play(">c");
    // It was out for 3 s and is well for as long: still the same affair.
    case.now += s(3) - Duration::from_millis(10);
    case.play("x");
    assert_eq!(case.out_for(), s(4));
    case.play(">c");
    case.now += s(4);
    case.play("x");
    assert_eq!(case.out_for(), s(1));
}

#[test]
fn what_was_under_way_when_it_was_ejected_changes_nothing() {
    let mut case = Case::passive(2);
    case.play("xx");
    let (deadline, label) = (case.judge.deadline(), case.judge.label());
    assert_eq!(case.play("xxxceaaeeexxx"), "EEEEEEEEEEEEE");
    assert_eq!(case.judge.deadline(), deadline);
    assert_eq!(case.judge.label(), label);
    assert_eq!(case.changes.len(), 1);
    assert!(!case.judge.awaits_success());
}

#[test]
fn a_down_backend_ignores_what_connections_meet() {
    let mut case = Case::new(Some(RULE), Some(PASSIVE));
    assert_eq!(case.play("---"), "UUD");
    let label = case.judge.label();
    assert_eq!(case.play("xxxeeecaxx"), "DDDDDDDDDD");
    assert_eq!(case.judge.label(), label);
    assert_eq!(case.play("++"), "DU");
    // Nothing is held against it.
    assert_eq!(case.play("ee"), "UU");
}

#[test]
fn a_passing_probe_lifts_an_ejection() {
    let mut case = Case::new(Some(RULE), Some(PASSIVE));
    assert_eq!(case.play("x+"), "EU");
    assert_eq!(case.changes.last().map(|change| change.cause), Some(Cause::Probe));
    assert_eq!(case.judge.deadline(), None);
    // During a trial too. The second in a row was longer, and once it is well for long the count starts over.
    assert_eq!(case.play("x"), "E");
    assert_eq!(case.out_for(), s(2));
    assert_eq!(case.play(">+"), "TU");
    case.now += s(10);
    assert_eq!(case.play("x"), "E");
    assert_eq!(case.out_for(), s(1));
    // A failing one does not, and makes it down when there are enough.
    assert_eq!(case.play("---++"), "EEDDU");
}

/// It connects, as it did for those whose connections were ended then: only a trial tells more.
#[test]
fn a_passing_probe_does_not_lift_an_ejection_for_early_ends() {
    let mut case = Case::new(Some(RULE), Some(PASSIVE));
    assert_eq!(case.play("eee++"), "UUEEE");
    assert_eq!(case.play(">+a"), "TTU");
}

#[test]
fn a_backend_that_goes_down_while_ejected_is_well_when_it_comes_up() {
    let mut case = Case::new(Some(Rule { fails: 1, passes: 1 }), Some(PASSIVE));
    assert_eq!(case.play("x-"), "ED");
    assert!(!case.judge.is_usable());
    // The ejection is over with that, so that there is no trial while it is down.
    assert_eq!(case.judge.deadline(), None);
    case.now += s(2);
    assert_eq!(case.play("."), "D");
    assert!(!case.judge.is_on_trial());
    assert!(!case.judge.is_usable());
    assert_eq!(case.play("+"), "U");
    assert!(case.judge.is_usable());
    assert!(!case.judge.is_on_trial());
    // Being down is not being well, so this ejection is the second in a row.
    assert_eq!(case.play("x"), "E");
    assert_eq!(case.out_for(), s(2));
}

#[test]
fn where_too_many_are_out_it_stays() {
    let mut case = Case::passive(2);
    assert_eq!(case.play("!x!x!x"), "UUU");
    assert_eq!(case.play("x"), "E", "the next one counts with those of before");
    // A trial that fails when it may not be ejected again: it stays on trial.
    assert_eq!(case.play(">!x!xc"), "TTTU");
}

#[test]
fn deadlines_lead_to_progress() {
    let mut case = Case::new(Some(RULE), Some(PASSIVE));
    case.play("x");
    let deadline = case.judge.deadline().expect("it is out");
    assert!(!case.judge.tick(deadline - Duration::from_nanos(1)));
    assert!(case.judge.tick(deadline));
    assert!(!case.judge.tick(deadline));
    assert_eq!(case.judge.deadline(), None);
}

/// Events of the picture.
const EVENTS: [(char, &str); 7] = [
    ('+', "probe passed"),
    ('-', "probe failed"),
    ('x', "connect failed"),
    ('c', "connected"),
    ('e', "ended early"),
    ('a', "answered"),
    ('>', "time is over"),
];

/// All states and where each event leads, found by walking; with two failing probes that make it down, one that makes it up,
/// and one failed connect that ejects.
fn picture() -> String {
    let rule = Rule { fails: 2, passes: 1 };
    let mut graph: BTreeMap<String, Vec<(&str, String)>> = BTreeMap::new();
    let mut open = VecDeque::from([String::new()]);
    while let Some(script) = open.pop_front() {
        let at = |script: &str| {
            let mut case = Case::new(Some(rule), Some(PASSIVE));
            case.play(script);
            case.judge.label()
        };
        let state = at(&script);
        if graph.contains_key(&state) {
            continue;
        }
        assert!(graph.len() < 100, "a state grows without end: {state}");
        let next = |(letter, name): (char, &'static str)| {
            let script = format!("{script}{letter}");
            let to = at(&script);
            open.push_back(script);
            (name, to)
        };
        let edges = EVENTS.into_iter().map(next).collect();
        graph.insert(state, edges);
    }
    let mut text = String::from(
        "# Every state of a judge and where each event leads; events that lead nowhere else are left out.\n",
    );
    for (state, edges) in &graph {
        writeln!(text, "{state}").expect("a string takes everything");
        for (event, to) in edges.iter().filter(|(_, to)| to != state) {
            writeln!(text, "    {event} -> {to}").expect("a string takes everything");
        }
    }
    text
}

#[test]
fn the_transitions_are_golden() {
    let picture = picture();
    let golden = include_str!("golden/judge.txt");
    assert!(
        picture == golden,
        "src/tests/golden/judge.txt has\n{golden}\nbut the transitions are\n{picture}"
    );
}
