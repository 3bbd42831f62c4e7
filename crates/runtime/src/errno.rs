//! Error numbers of the kernel.

use std::fmt;
use std::io;

/// An error number as in errno(3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// Turns a completion's result into a count or an error: the only place that knows the sign convention.
pub(crate) const fn outcome(result: i32) -> Result<u32, Errno> {
    if result >= 0 {
        Ok(result as u32)
    } else {
        Err(Errno(-result))
    }
}

impl Errno {
    /// The operation was cancelled.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// No buffer was available, or the kernel lacks memory for one more socket.
    pub const NOBUFS: Self = Self(libc::ENOBUFS);
    /// The peer's kernel sent a reset.
    pub const CONNECTION_RESET: Self = Self(libc::ECONNRESET);
    /// The peer does not answer.
    pub const TIMED_OUT: Self = Self(libc::ETIMEDOUT);
    /// Would have to wait.
    pub const AGAIN: Self = Self(libc::EAGAIN);

    /// The last error of a system call of this thread.
    pub(crate) fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// A limit of this machine, not the fault of a peer: descriptors, ports, memory.
    pub const fn is_local(self) -> bool {
        matches!(
            self.0,
            libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM | libc::EADDRINUSE
        )
    }

    /// The peer's kernel refused: nobody listens there.
    pub const fn is_refused(self) -> bool {
        matches!(self.0, libc::ECONNREFUSED | libc::ENOENT)
    }

    /// The connection was reset, or is gone since an earlier reset.
    pub const fn is_reset(self) -> bool {
        matches!(self.0, libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED)
    }

    /// The network says that there is no way.
    pub const fn is_unreachable(self) -> bool {
        matches!(
            self.0,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN
        )
    }

    /// What a datagram socket is told of the network, once each: ICMP errors (`icmp_err_convert` of the kernel, RFC 1122
    /// section 4.1.3.3) and what the local stack says of a route. It can go on.
    pub const fn is_of_network(self) -> bool {
        self.is_refused()
            || self.is_unreachable()
            || matches!(
                self.0,
                libc::ENONET
                    | libc::ENOPROTOOPT
                    | libc::EOPNOTSUPP
                    | libc::EPROTO
                    | libc::EMSGSIZE
                    | libc::EACCES
                    | libc::EPERM
            )
    }

    /// The system does not have the call, or does not let us: a filter of system calls, an old kernel.
    pub const fn is_refusal(self) -> bool {
        matches!(self.0, libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL)
    }

    /// How the kernel refuses a train of datagrams: they are longer than the way's MTU (EINVAL, EMSGSIZE since 6.18), or
    /// the device lacks checksums (EIO).
    pub(crate) const fn refuses_train(self) -> bool {
        matches!(self.0, libc::EINVAL | libc::EMSGSIZE | libc::EIO)
    }

    /// How a packet is refused whose sender must not come in where it does (rp_filter); EXDEV by kernels that tell it apart.
    pub const fn refuses_sender(self) -> bool {
        matches!(self.0, libc::EINVAL | libc::EXDEV)
    }

    /// Keepalive or retransmission gave up on the peer.
    pub const fn is_timed_out(self) -> bool {
        self.0 == libc::ETIMEDOUT
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_reset_is_errno_104() {
        assert_eq!(outcome(-104), Err(Errno(104)));
        assert!(Errno(104).is_reset());
        assert_eq!(outcome(0), Ok(0));
        assert_eq!(outcome(7), Ok(7));
    }

    #[test]
    fn broken_pipe_counts_as_reset_and_too_many_files_as_local() {
        assert!(Errno(32).is_reset());
        assert!(Errno(24).is_local());
        assert!(Errno(111).is_refused());
        assert!(!Errno(111).is_local());
    }
}
