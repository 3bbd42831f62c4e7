//! Anonymous memory mappings. Unsafe module: mmap(2), munmap(2) and access by bounds-checked ranges.

use std::io;
use std::ptr::{self, NonNull};

/// Zeroed, page-aligned memory that is resident only where it was touched. Not readable by child processes.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes (rounded up to pages by the kernel).
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        assert!(len > 0, "an empty mapping");
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        Ok(Self { start, len })
    }

    /// First byte; valid until `self` is dropped.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Address of `len` bytes at `offset`; panics if they are not inside.
    pub(crate) fn range(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "a range outside of its mapping"
        );
        // SAFETY: the assertion above keeps the result inside the mapping.
        unsafe { self.start.add(offset) }
    }

    /// Keeps the memory mapped for ever. For the one case in which the kernel may still write into it.
    pub(crate) fn leak(&mut self) {
        self.len = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: `start` and `len` came from mmap(2) and nobody else unmaps them; whoever handed addresses to the
        // kernel (`driver::uring`) drops the mapping only after the last completion, or leaks it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
