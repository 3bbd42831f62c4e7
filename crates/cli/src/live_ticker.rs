//! What changed: events derived from one status after the other.
//!
//! Knows no clock: an event's time is the process's age in the status that showed it. Called by `demo`.

use ringway_control::status::grid::{Cell, Tone};
use ringway_control::status::units::age;
use ringway_control::status::{Status, mark};
use std::collections::{HashMap, VecDeque};

/// The last changes.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    /// By pool and label; `None` before the first status.
    seen: Option<HashMap<(String, String), String>>,
    phase: String,
    events: VecDeque<Event>,
    /// Of the last ones, how many nobody took yet.
    fresh: usize,
}

#[derive(Debug)]
struct Event {
    at_seconds: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A backend's condition.
    Changed {
        label: String,
        condition: String,
        why: String,
        pools: Vec<String>,
        /// In every pool that has it.
        everywhere: bool,
    },
    /// Anything else.
    Said(String),
}

/// Events that are kept.
pub(crate) const EVENTS_MAX: usize = 8;
/// A backend that several pools have changes in each of them, but not in the same moment.
const SAME_SECONDS: u64 = 3;

impl Ticker {
    /// Compares with the status before; the first one only says how things are.
    pub(crate) fn observe(&mut self, status: &Status) {
        let first = self.seen.is_none();
        let before = self.seen.take().unwrap_or_default();
        let mut now = HashMap::new();
        for pool in &status.pools {
            for backend in &pool.backends {
                let key = (pool.name.clone(), backend.label.clone());
                if !first && before.get(&key) != Some(&backend.condition) {
                    self.changed(status, &pool.name, &backend.label, &backend.condition, &backend.why);
                }
                now.insert(key, backend.condition.clone());
            }
        }
        if !first && self.phase != status.phase {
            self.say(status.uptime_seconds, format!("the process is {}", status.phase));
        }
        self.phase.clone_from(&status.phase);
        self.seen = Some(now);
    }

    /// Adds what somebody else knows.
    pub(crate) fn say(&mut self, at_seconds: u64, text: String) {
        self.push(Event {
            at_seconds,
            what: What::Said(text),
        });
    }

    /// The last events, the latest at the end.
    pub(crate) fn lines(&self) -> Vec<Cell> {
        self.events.iter().map(Event::line).collect()
    }

    /// Those that came since this was called last.
    pub(crate) fn take_fresh(&mut self) -> Vec<Cell> {
        let fresh = std::mem::take(&mut self.fresh);
        self.events
            .iter()
            .skip(self.events.len() - fresh)
            .map(Event::line)
            .collect()
    }

    fn changed(&mut self, status: &Status, pool: &str, label: &str, condition: &str, why: &str) {
        let having = |name: &str| {
            status
                .pools
                .iter()
                .filter(|p| p.backends.iter().any(|b| b.label == name))
                .count()
        };
        for event in self.events.iter_mut().rev() {
            if event.at_seconds + SAME_SECONDS < status.uptime_seconds {
                break;
            }
            if let What::Changed {
                label: known,
                condition: known_condition,
                pools,
                everywhere,
                ..
            } = &mut event.what
                && (&**known, &**known_condition) == (label, condition)
                && !pools.iter().any(|known| known == pool)
            {
                pools.push(pool.to_owned());
                *everywhere = pools.len() == having(label);
                return;
            }
        }
        self.push(Event {
            at_seconds: status.uptime_seconds,
            what: What::Changed {
                label: label.to_owned(),
                condition: condition.to_owned(),
                why: why.to_owned(),
                pools: vec![pool.to_owned()],
                everywhere: having(label) == 1,
            },
        });
    }

    fn push(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.fresh = (self.fresh + 1).min(EVENTS_MAX);
    }
}

impl Event {
    fn line(&self) -> Cell {
        let at = age(self.at_seconds);
        match &self.what {
            What::Said(text) => Cell::toned(format!("{at:>7}  - {text}"), Tone::Plain),
            What::Changed {
                label,
                condition,
                why,
                pools,
                everywhere,
            } => {
                let (mark, tone) = mark(condition);
                let place = if *everywhere {
                    String::new()
                } else {
                    format!(" in {}", pools.join(", "))
                };
                let why = if why.is_empty() {
                    String::new()
                } else {
                    format!(": {why}")
                };
                Cell::toned(format!("{at:>7}  {mark} {label} is {condition}{place}{why}"), tone)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_control::status::{BackendStatus, PoolStatus};

    /// Pools by name, each with one backend in this condition.
    fn status(uptime_seconds: u64, pools: &[(&str, &str)]) -> Status {
        let pool = |&(name, condition): &(&str, &str)| PoolStatus {
            name: name.to_owned(),
            backends: vec![BackendStatus {
                label: "backend-b".to_owned(),
                condition: condition.to_owned(),
                why: if condition == "up" { "" } else { "refused" }.to_owned(),
                ..BackendStatus::default()
            }],
            ..PoolStatus::default()
        };
        Status {
            uptime_seconds,
            phase: "ready".to_owned(),
            pools: pools.iter().map(pool).collect(),
            ..Status::default()
        }
    }

    fn texts(ticker: &Ticker) -> Vec<String> {
        use ringway_control::status::grid::Grid;
        let mut grid = Grid::new(&[]);
        ticker.lines().into_iter().for_each(|line| grid.line(line));
        grid.lines(200, false)
    }

    #[test]
    fn the_first_status_is_no_event() {
        let mut ticker = Ticker::default();
        ticker.observe(&status(1, &[("a", "down")]));
        assert_eq!(texts(&ticker), [] as [&str; 0]);
    }

    #[test]
    fn one_change_in_several_pools_is_one_event() {
        let mut ticker = Ticker::default();
        ticker.observe(&status(5, &[("a", "up"), ("b", "up"), ("c", "up")]));
        ticker.observe(&status(72, &[("a", "down"), ("b", "down"), ("c", "up")]));
        assert_eq!(texts(&ticker), ["  1m12s  ✗ backend-b is down in a, b: refused"]);
        ticker.observe(&status(73, &[("a", "down"), ("b", "down"), ("c", "down")]));
        assert_eq!(texts(&ticker), ["  1m12s  ✗ backend-b is down: refused"]);
        ticker.observe(&status(90, &[("a", "up"), ("b", "down"), ("c", "down")]));
        assert_eq!(texts(&ticker)[1], "  1m30s  ✓ backend-b is up in a");
    }

    #[test]
    fn what_comes_back_soon_is_told_again() {
        let mut ticker = Ticker::default();
        for (second, condition) in [(1, "up"), (2, "ejected"), (3, "up"), (4, "ejected")] {
            ticker.observe(&status(second, &[("a", condition)]));
        }
        assert_eq!(texts(&ticker).len(), 3);
    }

    #[test]
    fn only_the_last_ones_are_kept_and_each_is_fresh_once() {
        let mut ticker = Ticker::default();
        for second in 0..10 {
            ticker.say(second, format!("event {second}"));
        }
        assert_eq!(ticker.lines().len(), 8);
        assert_eq!(texts(&ticker)[0], "     2s  - event 2");
        assert_eq!(ticker.take_fresh().len(), 8);
        ticker.say(11, "one more".to_owned());
        assert_eq!(ticker.take_fresh().len(), 1);
        assert_eq!(ticker.take_fresh().len(), 0);
    }
}
