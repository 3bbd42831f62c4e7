//! What workers tell the control plane: what they met with backends, and sessions that ended.
//!
//! The control plane implements these; a worker never waits for it.

use ringway_core::backend::BackendState;
use ringway_core::health::Report;
use ringway_core::model::PoolIndex;
use ringway_core::reason::EndReason;
use ringway_runtime::Address;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Hears of what workers meet. Called on the packet path: must return at once, whatever happens behind it.
pub trait Observer: Debug + Send + Sync {
    /// Something that bears on a backend's health. Failures are always told, successes only where the backend's orders
    /// ask for one. A connect that failed on trial leaves the trial to who hears of it: to end it or to open it again.
    fn met(&self, pool: PoolIndex, backend: &Arc<BackendState>, report: Report);

    /// Whether [`Self::ended`] wants sessions; asked once per worker.
    fn logs_sessions(&self) -> bool;

    /// Sessions that ended in one turn of a worker's loop; takes them out of `records`.
    fn ended(&self, records: &mut Vec<SessionRecord>);
}

/// One finished session, for the log.
#[derive(Debug)]
pub struct SessionRecord {
    /// Who connected; `None` if it was gone before it was asked.
    pub client: Option<Address>,
    /// What only some sessions have. Apart, because each record is copied several times on its way to the log.
    pub seldom: Option<Box<Seldom>>,
    /// Position in `Model::listeners`.
    pub listener: usize,
    /// The pool; `None`: it ended before it was known where it goes.
    pub pool: Option<PoolIndex>,
    /// The backend of the last try; `None`: none could be chosen.
    pub backend: Option<Arc<BackendState>>,
    /// Backends tried.
    pub tries: u8,
    /// From choosing the backend of the last try to its connection; `None`: it could not be connected.
    pub connect_time: Option<Duration>,
    /// Bytes received from the client and passed on.
    pub bytes_from_client: u64,
    /// Bytes received from the backend and passed on.
    pub bytes_from_backend: u64,
    /// UDP: datagrams received from the client and passed on, and from the backend; `None` of a connection.
    pub datagrams: Option<(u64, u64)>,
    /// From accept to end.
    pub duration: Duration,
    /// Why it ended.
    pub reason: EndReason,
}

/// What is known of some sessions only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seldom {
    /// The balancer in front that said who connected, in a PROXY header.
    pub proxy: Option<Address>,
    /// The name that the client asked for in its TLS hello, in normal form.
    pub server_name: Option<Box<str>>,
    /// What the backend was told as the connection's own name (PROXY protocol, TLV 0x05).
    pub id: Option<Box<str>>,
}

impl SessionRecord {
    /// The balancer in front that said who connected.
    pub fn proxy(&self) -> Option<&Address> {
        self.seldom.as_ref()?.proxy.as_ref()
    }

    /// The name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.seldom.as_ref()?.server_name.as_deref()
    }

    /// The connection's own name.
    pub fn id(&self) -> Option<&str> {
        self.seldom.as_ref()?.id.as_deref()
    }
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Observer for Nobody {
    fn met(&self, _: PoolIndex, backend: &Arc<BackendState>, report: Report) {
        if report.is_no_connection() {
            backend.reopen_trial();
        }
    }

    fn logs_sessions(&self) -> bool {
        false
    }

    fn ended(&self, records: &mut Vec<SessionRecord>) {
        records.clear();
    }
}
