//! Making a ring: what is registered with it, and what it may do afterwards. Unsafe module: hands memory to the kernel.

use crate::buffer_ring::BufferRing;
use crate::capabilities::{Capabilities, Unavailable};
use crate::socket::errno_of;
use crate::sys;
use io_uring::IoUring;
use io_uring::squeue::Flags;
use std::io;

/// Hands a ring of buffers to the kernel.
pub(super) fn register(ring: &IoUring, buffers: &BufferRing, group: u16) -> Result<(), Unavailable> {
    let (address, entries) = buffers.shared_ring();
    // SAFETY: the ring of entries is page-aligned, has `entries` entries and stays mapped until `retire` saw the last
    // completion (or leaked it): the `BufferRing` is owned by the driver and dropped after its ring.
    unsafe {
        ring.submitter()
            .register_buf_ring_with_flags(address, entries, group, 0)
    }
    .map_err(|error| Unavailable::new("registering the receive buffers", errno_of(&error)))
}

/// After this the ring can do nothing but what the driver uses, and nothing can be registered any more.
pub(super) fn restrict(ring: &IoUring) -> io::Result<()> {
    use io_uring::register::Restriction;
    let mut allowed: Vec<Restriction> = Capabilities::OPCODES
        .iter()
        .map(|&code| Restriction::sqe_op(code))
        .collect();
    allowed.push(Restriction::sqe_flags_allowed(
        (Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS).bits(),
    ));
    for operation in [
        sys::IORING_REGISTER_RING_FDS,
        sys::IORING_UNREGISTER_RING_FDS,
        sys::IORING_REGISTER_ENABLE_RINGS,
    ] {
        allowed.push(Restriction::register_op(operation as u8));
    }
    ring.submitter().register_restrictions(&mut allowed)
}
