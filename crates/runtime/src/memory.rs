//! Anonymous memory mappings. Unsafe module: mmap(2), madvise(2), munmap(2) and access by bounds-checked ranges.

use std::io;
use std::ptr::{self, NonNull};

/// The smallest page of any Linux; on systems with greater ones the kernel refuses what is not a whole page of theirs.
pub(crate) const PAGE: usize = 4096;

/// Zeroed, page-aligned memory that is resident only where it was touched. Child processes do not have it.
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
        let mapping = Self { start, len };
        // SAFETY: exactly the fresh mapping; nobody has an address of it yet.
        if unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
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

    /// Gives the whole pages inside of a range back to the system; they read as zeroes afterwards. The caller has no use
    /// for what is in the range. What shares a page with something outside of it stays: the kernel takes whole pages, and
    /// would round the range up (madvise(2)).
    pub(crate) fn forget(&self, offset: usize, len: usize) {
        let first = offset.next_multiple_of(PAGE);
        let end = (offset + len) / PAGE * PAGE;
        if first >= end {
            return;
        }
        let start = self.range(first, end - first);
        // SAFETY: the range is inside the mapping, which is private and anonymous: nothing but its contents is lost. A
        // failure leaves the contents, which is as good.
        unsafe { libc::madvise(start.as_ptr().cast(), end - first, libc::MADV_DONTNEED) };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that has the pages would get writes of the kernel's that are meant for the parent, or keep them alive.
    #[test]
    fn children_do_not_have_the_mapping() {
        let mapping = Mapping::new(3 * 4096).expect("memory");
        let address = mapping.start().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("procfs");
        let mut inside = false;
        let flags = maps.lines().find_map(|line| {
            if let Some((start, end)) = area(line) {
                inside = (start..end).contains(&address);
            }
            line.strip_prefix("VmFlags:").filter(|_| inside)
        });
        let flags = flags.expect("the area's flags");
        assert!(flags.split_whitespace().any(|flag| flag == "dc"), "VmFlags:{flags}");
    }
    /// `start-end` in hexadecimal at the start of an area's first line (proc_pid_maps(5)).
    fn area(line: &str) -> Option<(usize, usize)> {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((
            usize::from_str_radix(start, 16).ok()?,
            usize::from_str_radix(end, 16).ok()?,
        ))
    }

    fn fill(mapping: &Mapping, len: usize) {
        // SAFETY: inside the mapping, which nobody else uses.
        unsafe { mapping.range(0, len).as_ptr().write_bytes(7, len) };
    }

    fn sevens(mapping: &Mapping, offset: usize, len: usize) -> usize {
        // SAFETY: inside the mapping, which nobody writes meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.range(offset, len).as_ptr(), len) };
        bytes.iter().filter(|&&byte| byte == 7).count()
    }

    /// Buffers of 1 KiB: four of them share a page.
    #[test]
    fn forgetting_leaves_what_shares_a_page_alone() {
        let mapping = Mapping::new(4 * PAGE).expect("memory");
        fill(&mapping, 4 * PAGE);
        mapping.forget(0, 1024);
        assert_eq!(sevens(&mapping, 0, PAGE), PAGE, "less than a page");
        mapping.forget(1024, 2 * PAGE);
        assert_eq!(sevens(&mapping, 0, PAGE), PAGE, "a part of a page before");
        assert_eq!(sevens(&mapping, PAGE, PAGE), 0, "a whole page");
        assert_eq!(
            sevens(&mapping, 2 * PAGE, 2 * PAGE),
            2 * PAGE,
            "a part of a page behind"
        );
    }
}
