//! Who is well: the judgement of one backend ([`Judge`]) and of a pool ([`PoolHealth`]).
//!
//! Values and time in, changes out; nothing here probes, connects or logs. `ringway-control` feeds probe results and what
//! workers met, and publishes what is decided. Times are the workers' clock since an arbitrary start.

mod judge;
mod pool;

pub use judge::{Cause, Change, Judge, Report, Rule};
pub use pool::{Member, Membership, PoolHealth, Share};

/// The conditions of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// Can be chosen.
    Up,
    /// Probes fail.
    Down,
    /// Connections to it failed; out for a while, then one connection tries it.
    Ejected,
    /// Leaves the pool: nothing new goes there, open sessions go on.
    Draining,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Ejected, Self::Draining];

    /// The word in status, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}
