//! The judgement of a pool: which of its backends may be chosen now, and with which share.

use super::{Change, Condition, Judge, Report, Rule};
use crate::backend::BackendState;
use crate::balance::Candidate;
use crate::model::{self, Balance, Failback};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Shares are in tenths of the configured weight while a backend of the pool starts slowly.
const TENTHS: u32 = 10;

/// What a backend is in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// 1 to 1000.
    pub weight: u16,
    /// Used only while no other backend is usable.
    pub backup: bool,
}

/// One backend of a pool.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its live state.
    pub state: Arc<BackendState>,
    /// Its place in the pool.
    pub membership: Membership,
    /// Its standing.
    pub judge: Judge,
    /// It has left the pool; kept until its last session has ended.
    pub draining_since: Option<Duration>,
    /// It has been draining for longer than UDP sessions may stay.
    is_overdue: bool,
    /// When it came (back) up, unless it has been since the start.
    came_up: Option<Duration>,
}

impl Member {
    /// What it is now.
    pub const fn condition(&self) -> Condition {
        if self.draining_since.is_some() {
            Condition::Draining
        } else {
            self.judge.condition()
        }
    }

    /// Whether new connections may go there, as far as it is for itself.
    pub const fn is_usable(&self) -> bool {
        self.draining_since.is_none() && self.judge.is_usable()
    }

    /// When it will have been draining for this long, unless that was told.
    fn overdue_at(&self, timeout: Duration) -> Option<Duration> {
        let since = self.draining_since.filter(|_| !self.is_overdue)?;
        Some(since + timeout)
    }
}

/// A backend's share of what comes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which one.
    pub index: model::BackendIndex,
    /// Relative to the others.
    pub weight: u32,
}

/// All backends of a pool with their standing.
#[derive(Clone, Debug)]
pub struct PoolHealth {
    health: model::Health,
    failback: Failback,
    /// Clients of consistent hashing would move twice if weights grew slowly.
    may_start_slowly: bool,
    members: BTreeMap<usize, Member>,
    /// Backups serve.
    on_backups: bool,
    /// Up to when [`Self::tick`] has looked at shares that grow.
    ticked: Duration,
}

impl PoolHealth {
    /// A pool without backends.
    pub fn new(pool: &model::Pool) -> Self {
        Self {
            health: pool.health.clone(),
            failback: pool.sessions.failback,
            may_start_slowly: pool.balance != Balance::IpHash,
            members: BTreeMap::new(),
            on_backups: false,
            ticked: Duration::ZERO,
        }
    }

    /// Adds a backend, or takes one back that was draining. `late`: not from the start, so that it starts slowly.
    pub fn add(&mut self, state: Arc<BackendState>, membership: Membership, late: bool, now: Duration) {
        let rule = self.health.check.as_ref().map(Rule::from);
        let passive = self.health.passive;
        let index = state.index.0;
        let member = self.members.entry(index).or_insert_with(|| Member {
            state,
            membership,
            judge: Judge::new(rule, passive, now),
            draining_since: None,
            is_overdue: false,
            came_up: late.then_some(now),
        });
        member.membership = membership;
        if member.draining_since.take().is_some() {
            member.came_up = Some(now);
            member.is_overdue = false;
        }
    }

    /// A backend leaves: nothing new goes there.
    pub fn drain(&mut self, index: model::BackendIndex, now: Duration) {
        if let Some(member) = self.members.get_mut(&index.0) {
            member.draining_since.get_or_insert(now);
        }
    }

    /// Forgets backends that are draining and have no connection left; returns them.
    pub fn take_drained(&mut self) -> Vec<Arc<BackendState>> {
        let drained = |member: &Member| member.draining_since.is_some() && member.state.connections() == 0;
        let gone: Vec<usize> = self
            .members
            .iter()
            .filter(|(_, member)| drained(member))
            .map(|(&index, _)| index)
            .collect();
        gone.iter()
            .filter_map(|index| Some(self.members.remove(index)?.state))
            .collect()
    }

    /// Backends that have been draining for `timeout`; each is returned once.
    pub fn take_overdue(&mut self, now: Duration, timeout: Duration) -> Vec<Arc<BackendState>> {
        let is_overdue = |member: &&mut Member| member.overdue_at(timeout).is_some_and(|at| at <= now);
        let note = |member: &mut Member| {
            member.is_overdue = true;
            member.state.clone()
        };
        self.members.values_mut().filter(is_overdue).map(note).collect()
    }

    /// When [`Self::take_overdue`] has something to return.
    pub fn overdue_deadline(&self, timeout: Duration) -> Option<Duration> {
        let members = self.members.values();
        members.filter_map(|member| member.overdue_at(timeout)).min()
    }

    /// All of them, in the order in which they came.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One of them.
    pub fn member(&self, index: model::BackendIndex) -> Option<&Member> {
        self.members.get(&index.0)
    }

    /// The result of an active probe, in words.
    pub fn probed(
        &mut self,
        index: model::BackendIndex,
        passed: bool,
        why: &Arc<str>,
        now: Duration,
    ) -> Option<Change> {
        let member = self.members.get_mut(&index.0)?;
        let change = member.judge.probed(passed, why, now);
        member.note(change.as_ref(), now);
        change
    }

    /// What a worker met.
    pub fn met(&mut self, index: model::BackendIndex, report: Report, now: Duration) -> Option<Change> {
        let may_eject = self.may_eject(index);
        let staying = |member: &&mut Member| member.draining_since.is_none();
        let member = self.members.get_mut(&index.0).filter(staying)?;
        let change = member.judge.met(report, may_eject, now);
        member.note(change.as_ref(), now);
        change
    }

    /// Whether one more may be out: at most `max_ejected` percent of the pool, rounded down. Whoever is down is out too:
    /// counted by themselves, ejections could take the last backends that probes have left.
    fn may_eject(&self, index: model::BackendIndex) -> bool {
        let percent = self
            .health
            .passive
            .map_or(0, |passive| usize::from(passive.max_ejected));
        let staying = || self.members.values().filter(|member| member.draining_since.is_none());
        let is_out = |member: &&Member| member.condition() != Condition::Up && member.state.index != index;
        (staying().filter(is_out).count() + 1) * 100 <= staying().count() * percent
    }

    /// Time has passed; `true`: who can be chosen, or with which share, may have changed.
    pub fn tick(&mut self, now: Duration) -> bool {
        let before = std::mem::replace(&mut self.ticked, now);
        let slow_start = self.slow_start();
        let mut changed = false;
        for member in self.members.values_mut() {
            changed |= member.judge.tick(now);
            changed |= slow_start.is_some_and(|time| member.tenths(time, before) != member.tenths(time, now));
        }
        changed
    }

    /// When [`Self::tick`] has something to do; what was due before `now` and is not done yet is due at once. After a
    /// tick at this moment the next one is later.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let judges = self.members.values().filter_map(|member| member.judge.deadline());
        // From where the last tick stopped, so that a step since then is not overlooked.
        let since = self.ticked.min(now);
        let slow_start = self.slow_start();
        let steps = self
            .members
            .values()
            .filter_map(|member| member.next_step(slow_start?, since));
        judges.chain(steps).min()
    }

    fn slow_start(&self) -> Option<Duration> {
        let has_steps = |time: &Duration| self.may_start_slowly && !time.is_zero();
        self.health.slow_start.filter(has_steps)
    }

    /// Whether backups serve, as last decided by [`Self::shares`].
    pub const fn is_on_backups(&self) -> bool {
        self.on_backups
    }

    /// Who may be chosen now, and with which share: those that are usable; backups if there are none; everybody, with
    /// `fail_open`, if there are none of those either.
    pub fn shares(&mut self, now: Duration) -> Vec<Share> {
        let usable = |backup: bool| {
            self.members
                .values()
                .filter(move |member| member.membership.backup == backup)
                .filter(|member| member.is_usable())
                .collect::<Vec<_>>()
        };
        let (first, backups) = (usable(false), usable(true));
        let stays = self.on_backups && self.failback == Failback::Manual && !backups.is_empty();
        let on_backups = stays || (first.is_empty() && !backups.is_empty());
        let chosen = if on_backups { backups } else { first };
        let chosen = if chosen.is_empty() && self.health.fail_open {
            let staying = |member: &&Member| member.draining_since.is_none();
            self.members.values().filter(staying).collect()
        } else {
            chosen
        };
        let slow_start = self.slow_start();
        let tenths = |member: &Member| slow_start.map_or(TENTHS, |time| member.tenths(time, now));
        let all_whole = chosen.iter().all(|member| tenths(member) == TENTHS);
        let shares = chosen
            .iter()
            .map(|member| Share {
                index: member.state.index,
                // In lowest terms when nobody starts: schedules stay short.
                weight: u32::from(member.membership.weight) * if all_whole { 1 } else { tenths(member) },
            })
            .collect();
        // While names are still looked up there may be backups alone; what was never left is not returned to.
        let has_others = self
            .members
            .values()
            .any(|member| !member.membership.backup && member.draining_since.is_none());
        self.on_backups = on_backups && (has_others || self.on_backups);
        shares
    }

    /// The same for a selector.
    pub fn candidates(&mut self, now: Duration) -> Vec<Candidate> {
        let shares = self.shares(now);
        let candidate = |share: Share| {
            Some(Candidate {
                state: self.members.get(&share.index.0)?.state.clone(),
                weight: share.weight,
            })
        };
        shares.into_iter().filter_map(candidate).collect()
    }
}

impl Member {
    fn note(&mut self, change: Option<&Change>, now: Duration) {
        if change.is_some_and(|change| change.to == Condition::Up) {
            self.came_up = Some(now);
        }
    }

    /// Its share in tenths of its weight: one when it comes up, one more after each tenth of the time.
    fn tenths(&self, slow_start: Duration, now: Duration) -> u32 {
        let Some(came_up) = self.came_up else { return TENTHS };
        let age = now.saturating_sub(came_up).as_nanos();
        let steps = age * u128::from(TENTHS) / slow_start.as_nanos().max(1);
        u32::try_from(steps + 1).unwrap_or(TENTHS).min(TENTHS)
    }

    /// When [`Self::tenths`] will be more than it is now.
    fn next_step(&self, slow_start: Duration, now: Duration) -> Option<Duration> {
        let steps = self.tenths(slow_start, now);
        if steps == TENTHS {
            return None;
        }
        // Rounded up to the nanosecond: at that moment the step must have been made.
        let age = (slow_start * steps + Duration::from_nanos(u64::from(TENTHS) - 1)) / TENTHS;
        Some(self.came_up? + age)
    }
}
