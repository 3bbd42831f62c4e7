//! What a session does when its backend is not to be used any more.

use super::listener::Relay;
use super::session::Upstream;
use ringway_core::balance::Tried;
use ringway_core::health::Report;
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::policy::{Cause, Next, next};
use ringway_core::session::{Id, spread};
use ringway_runtime::Errno;
use std::time::Duration;

/// Where a session's client's next datagram goes.
pub(super) enum Settled {
    /// On, in this session.
    Here,
    /// Nowhere for now: the session has no backend.
    Nowhere(DropReason),
    /// To a session of its own: this one is over.
    Over(EndReason),
}

impl Relay {
    /// Looks whether a session may stay where it is, and moves it if not. Called with each datagram of the client: whoever
    /// sends nothing needs no other backend.
    pub(super) fn settle(&mut self, id: Id, time: Duration) -> Settled {
        let pool = self.pool();
        let Some(entry) = self.table.get(id) else {
            return Settled::Nowhere(DropReason::Late);
        };
        let is_over = |lifetime| entry.opened + spread::lifetime(lifetime, entry.opened) <= time;
        if pool.sessions.max_lifetime.is_some_and(is_over) {
            return Settled::Over(EndReason::MaxLifetime);
        }
        if pool
            .health
            .silence
            .is_some_and(|silence| entry.unanswered(time) >= silence)
        {
            self.lost(id, Report::Silent);
        }
        let Some(entry) = self.table.get(id) else {
            return Settled::Nowhere(DropReason::Late);
        };
        let Some(cause) = entry.state.upstream.cause(self.worker.moment()) else {
            return Settled::Here;
        };
        let policy = self.pool().sessions.on_backend_down;
        match next(cause, policy, self.listener().udp.affinity) {
            Next::Stay => Settled::Here,
            Next::End(reason) => Settled::Over(reason),
            Next::Move => match self.relocate(id, cause) {
                Ok(()) => Settled::Here,
                Err(reason) => Settled::Nowhere(reason),
            },
        }
    }

    /// Gives a session another backend, or the same one anew if that is the only one.
    fn relocate(&mut self, id: Id, cause: Cause) -> Result<(), DropReason> {
        let Some(entry) = self.table.get(id) else {
            return Err(DropReason::Late);
        };
        let before = entry.state.upstream.backend().index;
        let client = (entry.key.client().ip(), entry.key.socket());
        let mut tried = Tried::default();
        if cause == Cause::Down {
            tried.insert(before);
        }
        let upstream = match self.choose(client, &tried, id) {
            // Nobody else is left. Whether it is back is found out by asking.
            Err(DropReason::NoBackend) if cause == Cause::Down => self.choose(client, &Tried::default(), id),
            other => other,
        }?;
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
        Ok(())
    }

    /// The network says that a session's backend is not there.
    pub(super) fn failed(&mut self, id: Id, errno: Errno) {
        if errno.is_refused() || errno.is_unreachable() {
            self.lost(id, Report::Unreachable);
        }
    }

    /// A session has lost its backend, which is told once.
    fn lost(&mut self, id: Id, report: Report) {
        let pool = self.listener().pool;
        let Some(entry) = self.table.get_mut(id) else { return };
        let Upstream {
            failed, reservation, ..
        } = &mut entry.state.upstream;
        if !*failed {
            *failed = true;
            reservation.leave_trial();
            self.worker.observer.met(pool, reservation.backend(), report);
        }
    }
}
