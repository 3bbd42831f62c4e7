//! The judgement of one backend: active probes make it up or down, failing connections eject it for a while.

use super::Condition;
use crate::model::{HealthCheck, Passive};
use std::sync::Arc;
use std::time::Duration;

/// Longest ejection, unless the first one is longer already.
const EJECT_MAX: Duration = Duration::from_secs(30);
/// Sessions that the backend ended before its first byte, in a row, which eject it; a client can cause one with
/// nonsense, so one is not enough.
const EARLY_ENDS_MIN: u32 = 3;

/// How many results in a row change an active judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Failures until it is down.
    pub fails: u32,
    /// Passes until it is up again.
    pub passes: u32,
}

impl From<&HealthCheck> for Rule {
    fn from(check: &HealthCheck) -> Self {
        Self {
            fails: check.fails,
            passes: check.passes,
        }
    }
}

/// What a worker met with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A connect was refused, timed out, or the network said no. Never an error of our own.
    ConnectFailed,
    /// UDP: the backend's host, or a router, said that nobody is there (ICMP). True for all of the backend's sessions.
    Unreachable,
    /// UDP: one client's datagrams were not answered for the pool's `silence`. Perhaps for a reason of that client's.
    Silent,
    /// A connect succeeded.
    Connected,
    /// The backend ended or reset a connection before its first byte, without the client having ended first.
    EndedEarly,
    /// The first byte came, or the connection has stood for a second.
    Answered,
}

impl Report {
    /// Whether it says that the backend cannot be reached.
    pub const fn is_no_connection(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::Unreachable | Self::Silent)
    }
}

/// Why a condition is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// As it began.
    Start,
    /// What the last probe said.
    Probe,
    /// Connects fail.
    Connects,
    /// Connections end before the first byte.
    EarlyEnds,
    /// A trial connection after an ejection went well.
    Trial,
}

/// A condition that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: Condition,
    /// What it is.
    pub to: Condition,
    /// Why.
    pub cause: Cause,
    /// The same in words, with figures; empty where the cause says it all.
    pub why: Arc<str>,
}

/// One backend's standing.
#[derive(Clone, Debug)]
pub struct Judge {
    rule: Option<Rule>,
    passive: Option<Passive>,
    /// As active probes see it.
    is_down: bool,
    /// Probe results in a row that speak against `is_down`.
    against: u32,
    /// Connects that failed in a row.
    connects_failed: u32,
    /// Connections in a row that ended early.
    ended_early: u32,
    /// None while it is down.
    ejection: Ejection,
    /// Ejections in a row; the next one lasts so many times longer, plus one.
    ejections: u32,
    /// When the last ejection was over for good, and how long it was to last.
    restored: Option<(Duration, Duration)>,
    /// Since when the condition is what it is.
    since: Duration,
    cause: Cause,
    why: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ejection {
    None,
    Until(Duration, Cause),
    /// The time is over; one connection at a time tries it.
    Trial(Cause),
}

impl Judge {
    /// A backend that nobody has looked at yet: usable.
    pub fn new(rule: Option<Rule>, passive: Option<Passive>, now: Duration) -> Self {
        Self {
            rule,
            passive,
            is_down: false,
            against: 0,
            connects_failed: 0,
            ended_early: 0,
            ejection: Ejection::None,
            ejections: 0,
            restored: None,
            since: now,
            cause: Cause::Start,
            why: "".into(),
        }
    }

    /// What it is now.
    pub const fn condition(&self) -> Condition {
        match (self.is_down, self.ejection) {
            (true, _) => Condition::Down,
            (false, Ejection::None) => Condition::Up,
            (false, Ejection::Until(..) | Ejection::Trial(_)) => Condition::Ejected,
        }
    }

    /// Whether new connections may go there: also those that try an ejected backend.
    pub const fn is_usable(&self) -> bool {
        !self.is_down && !matches!(self.ejection, Ejection::Until(..))
    }

    /// Whether one connection at a time is to try it.
    pub const fn is_on_trial(&self) -> bool {
        matches!(self.ejection, Ejection::Trial(_))
    }

    /// Whether probes are about to change the judgement, so that they are worth asking more often.
    pub const fn is_changing(&self) -> bool {
        self.against > 0
    }

    /// Whether a success that workers meet would change anything here.
    pub const fn awaits_success(&self) -> bool {
        self.is_usable() && (self.connects_failed > 0 || self.ended_early > 0 || self.is_on_trial())
    }

    /// Since when, why, and why in words.
    pub const fn standing(&self) -> (Duration, Cause, &Arc<str>) {
        (self.since, self.cause, &self.why)
    }

    /// When [`Self::tick`] has something to do.
    pub const fn deadline(&self) -> Option<Duration> {
        match self.ejection {
            Ejection::Until(until, _) => Some(until),
            Ejection::None | Ejection::Trial(_) => None,
        }
    }

    /// The result of an active probe, in words.
    pub fn probed(&mut self, passed: bool, why: &Arc<str>, now: Duration) -> Option<Change> {
        let rule = self.rule?;
        if passed != self.is_down {
            // As it was: what spoke against it is forgotten.
            self.against = 0;
            let for_connects = matches!(
                self.ejection,
                Ejection::Until(_, Cause::Connects) | Ejection::Trial(Cause::Connects)
            );
            if passed && for_connects {
                // The probe has connected just now; what connections met is older. Of connections that are ended before
                // their first byte it may not see anything: those a trial tells of.
                return self.restore(Cause::Probe, why.clone(), now);
            }
            return None;
        }
        self.against += 1;
        let enough = if passed { rule.passes } else { rule.fails };
        if self.against < enough {
            return None;
        }
        self.against = 0;
        if passed {
            return self.restore(Cause::Probe, why.clone(), now);
        }
        let before = self.condition();
        self.forget_connections(now);
        self.is_down = true;
        self.changed(before, Cause::Probe, why.clone(), now)
    }

    /// What a worker met. `may_eject`: enough others of the pool are left.
    pub fn met(&mut self, report: Report, may_eject: bool, now: Duration) -> Option<Change> {
        let passive = self.passive?;
        // While it is out, what is told of was under way before.
        if !self.is_usable() {
            return None;
        }
        match (report, self.ejection) {
            (Report::ConnectFailed | Report::Unreachable | Report::Silent, _) => {
                self.connects_failed = self.connects_failed.saturating_add(1);
                let enough = self.connects_failed >= passive.fails || self.is_on_trial();
                if !(enough && may_eject) {
                    return None;
                }
                let count = self.connects_failed;
                let why = match report {
                    Report::Unreachable => format!("nobody listens there (ICMP), {count} in a row"),
                    Report::Silent => format!("{count} in a row had no answer"),
                    _ => format!("{count} in a row could not be connected"),
                };
                self.eject(passive, Cause::Connects, why, now)
            }
            (Report::EndedEarly, _) => {
                self.ended_early = self.ended_early.saturating_add(1);
                let enough = self.ended_early >= passive.fails.max(EARLY_ENDS_MIN) || self.is_on_trial();
                if !(enough && may_eject) {
                    return None;
                }
                let why = format!("{} in a row were ended before their first byte", self.ended_early);
                self.eject(passive, Cause::EarlyEnds, why, now)
            }
            (Report::Connected, Ejection::Trial(Cause::Connects)) | (Report::Answered, Ejection::Trial(_)) => {
                self.restore(Cause::Trial, "a connection went well".into(), now)
            }
            // It may have connected all the time: with a trial for early ends, what counts is what comes then.
            (Report::Connected, _) => {
                self.connects_failed = 0;
                None
            }
            (Report::Answered, _) => {
                self.connects_failed = 0;
                self.ended_early = 0;
                None
            }
        }
    }

    /// Time has passed. `true`: [`Self::is_usable`] is another now; the condition never changes here.
    pub fn tick(&mut self, now: Duration) -> bool {
        match self.ejection {
            Ejection::Until(until, cause) if now >= until => {
                self.ejection = Ejection::Trial(cause);
                true
            }
            Ejection::None | Ejection::Until(..) | Ejection::Trial(_) => false,
        }
    }

    fn eject(&mut self, passive: Passive, cause: Cause, why: String, now: Duration) -> Option<Change> {
        let before = self.condition();
        // Longer well since the last time than it was out then: this is a first one again.
        if let Some((restored, lasted)) = self.restored.take()
            && now.saturating_sub(restored) > lasted
        {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let time = ejection_time(passive, self.ejections);
        self.ejection = Ejection::Until(now + time, cause);
        let why = format!("{why}; out for {time:?}");
        if before == Condition::Ejected {
            // A trial that failed: still ejected, for longer.
            self.cause = cause;
            self.why = why.into();
            return None;
        }
        self.changed(before, cause, why.into(), now)
    }

    /// Well again, whatever it was.
    fn restore(&mut self, cause: Cause, why: Arc<str>, now: Duration) -> Option<Change> {
        let before = self.condition();
        self.forget_connections(now);
        // Being down is not being well: it is well from now on.
        if self.is_down
            && let Some((restored, _)) = &mut self.restored
        {
            *restored = now;
        }
        self.is_down = false;
        self.changed(before, cause, why, now)
    }

    /// What connections met does not count any more.
    fn forget_connections(&mut self, now: Duration) {
        if self.ejection != Ejection::None {
            let lasted = self.passive.map(|passive| ejection_time(passive, self.ejections));
            self.restored = lasted.map(|lasted| (now, lasted));
        }
        self.ejection = Ejection::None;
        self.connects_failed = 0;
        self.ended_early = 0;
    }

    /// Everything that decides what comes next, except for times, for the picture of all states.
    #[cfg(test)]
    pub(crate) fn label(&self) -> String {
        let mut label = String::from(self.condition().word());
        match self.ejection {
            Ejection::None => {}
            Ejection::Until(_, cause) => label += &format!(", out for {cause:?}"),
            Ejection::Trial(cause) => label += &format!(", on trial for {cause:?}"),
        }
        // How many it were that ejected it does not matter for what comes next.
        let counts = self.ejection == Ejection::None;
        for (counts, count, what) in [
            (true, self.against, "probes against it"),
            (counts, self.connects_failed, "connects failed"),
            (counts, self.ended_early, "ended early"),
        ] {
            if counts && count > 0 {
                label += &format!(", {count} {what}");
            }
        }
        label
    }

    fn changed(&mut self, from: Condition, cause: Cause, why: Arc<str>, now: Duration) -> Option<Change> {
        let to = self.condition();
        if from == to {
            return None;
        }
        self.since = now;
        self.cause = cause;
        self.why = why.clone();
        Some(Change { from, to, cause, why })
    }
}

/// How long the `n`-th ejection in a row lasts.
fn ejection_time(passive: Passive, n: u32) -> Duration {
    passive.eject.saturating_mul(n).min(EJECT_MAX.max(passive.eject))
}
