//! Reads numbers and vectors of TLS (RFC 8446 section 3.4) and never looks beyond its end.

use std::ops::Range;

/// Where something lies in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes there; none should the message be shorter, which it is not.
    pub(super) fn of(self, message: &[u8]) -> &[u8] {
        message.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What is left to be read of some bytes. `None` from a method: there are fewer than that takes.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    whole: &'a [u8],
    /// Within `whole`.
    rest: Range<usize>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(whole: &'a [u8]) -> Self {
        Self {
            whole,
            rest: 0..whole.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.whole.get(self.rest.clone()).unwrap_or_default()
    }

    /// Where it lies. Messages are far below 4 GiB.
    pub(super) fn span(&self) -> Span {
        Span {
            start: self.rest.start as u32,
            end: self.rest.end as u32,
        }
    }

    /// The next `count` bytes, to be read by themselves.
    pub(super) fn take(&mut self, count: usize) -> Option<Self> {
        if count > self.rest.len() {
            return None;
        }
        let end = self.rest.start + count;
        let taken = self.rest.start..end;
        self.rest.start = end;
        Some(Self {
            whole: self.whole,
            rest: taken,
        })
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.bytes().first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    /// A vector whose length is one byte.
    pub(super) fn vector_u8(&mut self) -> Option<Self> {
        let count = self.u8()?;
        self.take(count.into())
    }

    /// A vector whose length is two bytes.
    pub(super) fn vector_u16(&mut self) -> Option<Self> {
        let count = self.u16()?;
        self.take(count.into())
    }
}
