//! Which backends one connection has already tried.

use crate::model::BackendIndex;

/// Backends already tried for one connection; a small set on the stack, empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Only the first `len` are meaningful; the others are 0.
    positions: [u32; Tried::MAX],
    len: u8,
}

impl Tried {
    /// How many fit: the greatest `tries` of a pool.
    pub const MAX: usize = 16;

    /// Remembers a backend. Returns whether it is in the set now: `false` only when [`Self::MAX`] others are.
    pub fn insert(&mut self, backend: BackendIndex) -> bool {
        if self.contains(backend) {
            return true;
        }
        let (Some(place), Ok(position)) = (self.positions.get_mut(usize::from(self.len)), u32::try_from(backend.0))
        else {
            return false;
        };
        *place = position;
        self.len += 1;
        true
    }

    /// Whether this backend was tried.
    #[inline]
    pub fn contains(&self, backend: BackendIndex) -> bool {
        self.positions[..self.len()]
            .iter()
            .any(|&position| position as usize == backend.0)
    }

    /// How many were tried, 0 to [`Self::MAX`].
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether this is the connection's first try.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
