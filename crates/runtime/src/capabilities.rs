//! What this kernel's io_uring can do: probed, never guessed from a version; and sentences for when it cannot be used.

use crate::buffer_ring::{BUFFERS_MIN, BufferOptions, BufferRing};
use crate::errno::Errno;
use crate::sys;
use io_uring::types::Fd as RingFd;
use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// What was found out about the kernel before the first worker starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// One receive completion may fill several buffers, and does so in the one way that can be told from its length
    /// (kernel 6.10 with its repairs of 2025, which came with 6.16 and to the stable kernels).
    pub bundles: bool,
}

/// io_uring cannot be used here: the step that failed, the error, and what to do about it.
#[derive(Debug)]
pub struct Unavailable {
    step: &'static str,
    errno: Errno,
    advice: String,
}

impl Capabilities {
    /// Every operation that the driver uses; a ring is restricted to these.
    pub(crate) const OPCODES: &'static [u8] = &[
        opcode::AcceptMulti::CODE,
        opcode::RecvMulti::CODE,
        opcode::RecvMsgMulti::CODE,
        opcode::Connect::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::Read::CODE,
        opcode::AsyncCancel::CODE,
    ];

    /// Sets up a small ring with the flags that workers use, and asks it.
    ///
    /// # Errors
    /// One sentence that names cause and cure.
    pub fn probe() -> Result<Self, Unavailable> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(8)
            .map_err(|error| Unavailable::from_setup(crate::socket::errno_of(&error)))?;
        let mut probe = Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|error| Unavailable::new("asking for supported operations", crate::socket::errno_of(&error)))?;
        let parameters = ring.params();
        let complete = Self::OPCODES.iter().all(|&code| probe.is_supported(code))
            && parameters.is_feature_nodrop()
            && parameters.is_feature_ext_arg()
            && parameters.is_feature_submit_stable()
            && parameters.is_feature_skip_cqe_on_success();
        if !complete {
            return Err(Unavailable::new("asking for supported operations", Errno(libc::EINVAL)));
        }
        let bundles = parameters.is_feature_recvsend_bundle()
            && leaves_lengths_alone(ring)
                .map_err(|error| Unavailable::new("trying a receive", crate::socket::errno_of(&error)))?;
        Ok(Self { bundles })
    }
}

impl Unavailable {
    pub(crate) fn from_setup(errno: Errno) -> Self {
        Self::new("io_uring_setup", errno)
    }

    pub(crate) fn new(step: &'static str, errno: Errno) -> Self {
        Self {
            step,
            errno,
            advice: advice(errno, &sysctl_io_uring_disabled()),
        }
    }
}

/// Tries a receive of a buffer and a byte that finds nothing, on a buffer ring of its own. Kernels without the repairs
/// shorten the second buffer's entry to the one byte and leave it so; the same kernels may go on behind a buffer that was
/// not filled. Either way the bytes of a bundle would be elsewhere than its length tells, and what is there instead is
/// another connection's.
fn leaves_lengths_alone(ring: IoUring) -> io::Result<bool> {
    const BUFFERS: BufferOptions = BufferOptions {
        count: BUFFERS_MIN,
        size: 4096,
    };
    let buffer_ring = BufferRing::shared(BUFFERS)?;
    // Dropped before the buffer ring.
    let mut ring = ring;
    let (address, entries) = buffer_ring.shared_ring();
    // SAFETY: the ring of entries is page-aligned, has `entries` entries, and outlives `ring`.
    unsafe { ring.submitter().register_buf_ring_with_flags(address, entries, 0, 0) }?;
    buffer_ring.publish();
    let (socket, peer) = UnixStream::pair()?;
    let mut entry = opcode::RecvBundle::new(RingFd(socket.as_raw_fd()), 0).build();
    sys::set_entry_len(&mut entry, BUFFERS.size + 1);
    // SAFETY: the entry names no memory but the buffer ring's, which outlives `ring`; the socket stays open until the
    // completion was waited for.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    ring.submit()?;
    let intact = buffer_ring.lengths_are_intact();
    drop(peer);
    ring.submit_and_wait(1)?;
    Ok(intact)
}

/// `kernel.io_uring_disabled` as text; empty where the kernel does not know it.
fn sysctl_io_uring_disabled() -> String {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// What to do about an error at set-up, given the value of `kernel.io_uring_disabled`.
fn advice(errno: Errno, disabled: &str) -> String {
    match (errno.0, disabled) {
        (libc::EPERM | libc::EACCES, "1") => {
            "the sysctl kernel.io_uring_disabled is 1: only CAP_SYS_ADMIN and the group in kernel.io_uring_group may \
             use io_uring; set it to 0 or put ringway's user into that group"
                .to_owned()
        }
        (libc::EPERM | libc::EACCES, "2") => {
            "the sysctl kernel.io_uring_disabled is 2: nobody may use io_uring; set it to 0 \
             (sysctl -w kernel.io_uring_disabled=0)"
                .to_owned()
        }
        (libc::EPERM | libc::EACCES, _) => {
            "a seccomp profile forbids it, as the default ones of Docker and containerd do; run with a profile that \
             allows io_uring_setup, io_uring_enter and io_uring_register"
                .to_owned()
        }
        (libc::ENOMEM, _) => "the limit of locked memory is too low for the ring (ulimit -l, LimitMEMLOCK=); raise it \
                              to 64 MiB or grant CAP_IPC_LOCK"
            .to_owned(),
        (libc::ENOSYS, _) => {
            "this kernel has no io_uring, or a sandbox hides it; ringway needs Linux 6.1 or later with CONFIG_IO_URING"
                .to_owned()
        }
        (libc::EINVAL, _) => {
            "this kernel's io_uring is too old for what ringway uses; it needs Linux 6.1 or later".to_owned()
        }
        (libc::EMFILE | libc::ENFILE, _) => {
            "the limit of descriptors is reached (ulimit -n, LimitNOFILE=); raise it".to_owned()
        }
        _ => "ringway cannot run without it".to_owned(),
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "io_uring cannot be used: {} failed: {}: {}",
            self.step, self.errno, self.advice
        )
    }
}

impl std::error::Error for Unavailable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_names_its_cure() {
        for (errno, disabled, cure) in [
            (libc::EPERM, "0", "seccomp"),
            (libc::EPERM, "", "seccomp"),
            (libc::EPERM, "1", "kernel.io_uring_group"),
            (libc::EPERM, "2", "kernel.io_uring_disabled=0"),
            (libc::ENOMEM, "0", "LimitMEMLOCK"),
            (libc::ENOSYS, "0", "Linux 6.1"),
            (libc::EINVAL, "0", "too old"),
            (libc::EMFILE, "0", "LimitNOFILE"),
        ] {
            let advice = advice(Errno(errno), disabled);
            assert!(advice.contains(cure), "errno {errno}, sysctl {disabled:?}: {advice}");
        }
    }
}
