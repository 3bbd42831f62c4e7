//! The ear of the control plane on the packet path: workers' reports and finished sessions.
//!
//! Never waits: a report that finds the queue full is counted and gone; the next one of its kind tells the same.

use super::keeper::Event;
use crate::session_log::SessionLog;
use ringway_core::backend::BackendState;
use ringway_core::health::Report;
use ringway_core::model::PoolIndex;
use ringway_proxy::observer::{Observer, SessionRecord};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::Sender;

/// Passes on what workers tell.
#[derive(Debug)]
pub struct Ear {
    events: Sender<Event>,
    session_log: Option<SessionLog>,
    lost: AtomicU64,
}

impl Ear {
    /// Tells the keeper behind `events`, and the session log if there is one.
    pub fn new(events: Sender<Event>, session_log: Option<SessionLog>) -> Self {
        Self {
            events,
            session_log,
            lost: AtomicU64::new(0),
        }
    }

    /// Reports that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Finished sessions that were not written.
    pub fn sessions_dropped(&self) -> u64 {
        self.session_log.as_ref().map_or(0, SessionLog::dropped)
    }
}

impl Observer for Ear {
    fn met(&self, pool: PoolIndex, backend: &Arc<BackendState>, report: Report) {
        let event = Event::Met {
            pool,
            backend: backend.index,
            report,
        };
        if self.events.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            match report {
                // The order to tell it was taken with it, and somebody waits for it: the next one is told instead.
                Report::Connected | Report::Answered => backend.orders.watch(),
                // Nobody will decide by it.
                Report::ConnectFailed | Report::Unreachable | Report::Silent => backend.reopen_trial(),
                Report::EndedEarly => {}
            }
        }
    }

    fn logs_sessions(&self) -> bool {
        self.session_log.is_some()
    }

    fn ended(&self, records: &mut Vec<SessionRecord>) {
        match &self.session_log {
            Some(log) => log.write(records),
            None => records.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_core::model::{Address, BackendIndex};
    use std::net::SocketAddr;

    #[test]
    fn a_success_that_was_lost_is_asked_for_again() {
        let address = Address::Inet(SocketAddr::from(([127, 0, 0, 1], 80)));
        let backend = BackendState::new(BackendIndex(0), address, "backend".into(), None, 1);
        let backend = Arc::new(backend);
        let (sender, _full) = tokio::sync::mpsc::channel(1);
        let ear = Ear::new(sender, None);
        ear.met(PoolIndex(0), &backend, Report::ConnectFailed);
        assert!(!backend.orders.take_watch(), "nobody asked");
        ear.met(PoolIndex(0), &backend, Report::Answered);
        assert_eq!(ear.lost(), 1);
        assert!(backend.orders.take_watch());
    }
}
