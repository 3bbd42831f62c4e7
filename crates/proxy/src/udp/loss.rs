//! What a session does when its backend is not to be used any more.

use super::listener::Relay;
use super::session::{Session, Upstream};
use ringway_core::balance::Tried;
use ringway_core::health::Report;
use ringway_core::model::{OnBackendDown, Pool};
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::policy::{Cause, Next, TRIAL_MAX, Word, next, told_by_silence};
use ringway_core::session::{Entry, Id, spread};
use ringway_runtime::Errno;
use std::time::Duration;

/// A client that has not sent for so long is not about to send.
const CLIENT_QUIET: Duration = Duration::from_secs(5);

/// Where a session's client's next datagram goes.
pub(super) enum Settled {
    /// On, in this session, which may have another name now.
    Here(Id),
    /// Nowhere for now: the session has no backend.
    Nowhere(DropReason),
    /// To a session of its own: this one is over.
    Over(EndReason),
}

/// Why a session ends that its client does not send in. What is to move waits for the client, except where the backend would
/// never be rid of it.
pub(super) fn to_end(entry: &Entry<Session>, pool: &Pool, time: Duration, moment: Duration) -> Option<EndReason> {
    if is_too_old(entry, pool, time) {
        return Some(EndReason::MaxLifetime);
    }
    // Whoever sends is moved with the next datagram, and keeps its session.
    let is_quiet = entry.last_request() + CLIENT_QUIET <= time;
    match entry.state.upstream.cause(moment).filter(|_| is_quiet)? {
        Cause::Removed => Some(EndReason::BackendRemoved),
        Cause::Failback => Some(EndReason::Failback),
        Cause::Down => {
            let closes = pool.sessions.on_backend_down == OnBackendDown::Close;
            closes.then_some(EndReason::BackendDown)
        }
    }
}

fn is_too_old(entry: &Entry<Session>, pool: &Pool, time: Duration) -> bool {
    let is_over = |lifetime| entry.opened + spread::lifetime(lifetime, entry.opened) <= time;
    pool.sessions.max_lifetime.is_some_and(is_over)
}

impl Relay {
    /// Looks whether a session may stay where it is, and moves it if not. Called with each datagram of the client: whoever
    /// sends nothing needs no other backend.
    pub(super) fn settle(&mut self, id: Id, time: Duration) -> Settled {
        let pool = self.pool();
        let Some(entry) = self.table.get(id) else {
            return Settled::Nowhere(DropReason::Late);
        };
        if is_too_old(entry, pool, time) {
            return Settled::Over(EndReason::MaxLifetime);
        }
        let is_tried = entry.state.upstream.is_tried();
        match told_by_silence(is_tried, pool.health.silence, entry.unanswered(time)) {
            Some(Word::Silent) => self.lost(id, Report::Silent),
            Some(Word::There) => self.went_well(id),
            None => {}
        }
        let Some(entry) = self.table.get(id) else {
            return Settled::Nowhere(DropReason::Late);
        };
        let Some(cause) = entry.state.upstream.cause(self.worker.moment()) else {
            return Settled::Here(id);
        };
        let policy = self.pool().sessions.on_backend_down;
        match next(cause, policy, self.listener().udp.affinity) {
            Next::Stay => Settled::Here(id),
            Next::End(reason) => Settled::Over(reason),
            Next::Move => match self.relocate(id, cause) {
                Ok(id) => Settled::Here(id),
                // Nothing is wrong with the backend that it has.
                Err(_) if cause != Cause::Down => Settled::Here(id),
                Err(reason) => Settled::Nowhere(reason),
            },
        }
    }

    /// Gives a session another backend, or the same one anew if that is the only one; and another name, so that what its
    /// old socket still brings is not taken for the new one's.
    fn relocate(&mut self, id: Id, cause: Cause) -> Result<Id, DropReason> {
        let Some(entry) = self.table.get(id) else {
            return Err(DropReason::Late);
        };
        let before = entry.state.upstream.backend().index;
        let client = (entry.state.client_of(entry.key.sender()).ip(), entry.key.socket());
        let mut tried = Tried::default();
        if cause == Cause::Down {
            tried.insert(before);
        }
        let renewed = self.table.renewed(id);
        let upstream = match self.choose(client, &tried, renewed) {
            // Nobody else is left. Whether it is back is found out by asking.
            Err(DropReason::NoBackend) if cause == Cause::Down => self.choose(client, &Tried::default(), renewed),
            other => other,
        }?;
        let id = self.table.renew(id).ok_or(DropReason::Late)?;
        assert_eq!(id, renewed, "a session has another name than was foretold");
        let Some(entry) = self.table.get_mut(id) else {
            return Err(DropReason::Late);
        };
        entry.forgive();
        let backend = upstream.backend().clone();
        entry.state.upstream = upstream;
        if backend.index != before {
            entry.state.booked.note(|entry| {
                entry.tries = entry.tries.saturating_add(1);
                entry.backend = Some(backend);
            });
            self.worker.stats.listeners[self.index].moved.add(1);
        }
        Ok(id)
    }

    /// The network says that a session's backend is not there.
    pub(super) fn failed(&mut self, id: Id, errno: Errno) {
        if errno.is_refused() || errno.is_unreachable() {
            self.lost(id, Report::Unreachable);
        }
    }

    /// A session that is over without an answer tells of its trial what there is to tell.
    pub(super) fn trial_over(&self, session: &Session, unanswered: Duration) {
        let Upstream { failed, .. } = session.upstream;
        if failed || !session.upstream.is_tried() || unanswered.is_zero() {
            return;
        }
        // It had the whole of its timeout.
        let silence = self.pool().health.silence;
        let report = match told_by_silence(true, silence, unanswered.max(TRIAL_MAX)) {
            Some(Word::Silent) => Report::Silent,
            Some(Word::There) => Report::Connected,
            None => return,
        };
        let pool = self.listener().only_pool();
        self.worker.observer.met(pool, session.upstream.backend(), report);
    }

    /// A backend that is tried has done nothing wrong.
    fn went_well(&mut self, id: Id) {
        let pool = self.listener().only_pool();
        let Some(entry) = self.table.get_mut(id) else { return };
        let upstream = &mut entry.state.upstream;
        // So that it is told once.
        upstream.answered = true;
        self.worker.observer.met(pool, upstream.backend(), Report::Connected);
    }

    /// A session has lost its backend, which is told once.
    fn lost(&mut self, id: Id, report: Report) {
        let listener = self.listener();
        let (pool, keeps_port) = (listener.only_pool(), listener.udp.keep_port);
        let Some(entry) = self.table.get_mut(id) else { return };
        let Upstream {
            failed, reservation, ..
        } = &mut entry.state.upstream;
        if *failed {
            return;
        }
        *failed = true;
        let was_trial = reservation.is_trial();
        reservation.leave_trial();
        if !keeps_port {
            self.worker.observer.met(pool, reservation.backend(), report);
        } else if was_trial {
            // That was one port of the backend, which says nothing of the others: they may try.
            reservation.backend().reopen_trial();
        }
    }
}
