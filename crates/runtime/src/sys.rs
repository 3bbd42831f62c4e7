//! System calls that no library of ours wraps: io_uring_enter(2) with a registered ring, accept4(2) for a drain,
//! splice(2) with its pipes, the thread's CPU clock, IP_BIND_ADDRESS_NO_PORT, and fields of submission entries that the io-uring crate does not expose. Unsafe module.

use crate::driver::Wait;
use crate::errno::Errno;
use io_uring::squeue::Entry;
use socket2::Socket;
use std::io;
use std::os::fd::AsRawFd;
use std::os::raw::{c_int, c_long};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Never wait, never raise SIGPIPE, and count a short send as a failure so that it is reported (io_uring_enter(2),
/// MSG_WAITALL).
pub(crate) const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

// io_uring.h of the kernel; the io-uring crate keeps these to itself.
const IORING_ENTER_GETEVENTS: u32 = 1 << 0;
const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;
pub(crate) const IORING_REGISTER_ENABLE_RINGS: u32 = 12;
pub(crate) const IORING_REGISTER_RING_FDS: u32 = 20;
pub(crate) const IORING_UNREGISTER_RING_FDS: u32 = 21;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// What io_uring_enter(2) is called with: an index of this thread's registered rings, or the descriptor. Dropped before
/// the descriptor is closed, and on the thread that made it: a ring lives on for as long as it is registered.
#[derive(Debug)]
pub(crate) struct EnterTarget {
    ring: i32,
    registered: Option<u32>,
}

impl EnterTarget {
    /// Registers the ring with the calling thread, which saves the kernel a look-up per call; falls back to the
    /// descriptor.
    pub(crate) fn register(ring: i32) -> Self {
        let mut update = ResourceUpdate {
            offset: u32::MAX,
            reserved: 0,
            data: ring as u64,
        };
        let registered = update_registered(ring, IORING_REGISTER_RING_FDS, &mut update);
        Self {
            ring,
            registered: registered.then_some(update.offset),
        }
    }

    #[cfg(test)]
    pub(crate) const fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Submits `queued` entries, runs deferred work, and waits for a completion as `wait` says.
    pub(crate) fn enter(&self, queued: u32, wait: Wait) -> Result<(), Errno> {
        let flags = IORING_ENTER_GETEVENTS;
        let mut timespec = KernelTimespec { seconds: 0, nanos: 0 };
        match wait {
            Wait::No => self.call(queued, 0, flags, None),
            Wait::Forever => self.call(queued, 1, flags, None),
            Wait::For(time) => {
                timespec.seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
                timespec.nanos = i64::from(time.subsec_nanos());
                let timespec = &raw const timespec as u64;
                let arg = GetEventsArg {
                    sigmask: 0,
                    sigmask_size: 0,
                    min_wait_us: 0,
                    timespec,
                };
                self.call(queued, 1, flags | IORING_ENTER_EXT_ARG, Some(&arg))
            }
        }
    }

    fn call(&self, queued: u32, want: u32, flags: u32, arg: Option<&GetEventsArg>) -> Result<(), Errno> {
        let (descriptor, flags) = match self.registered {
            Some(index) => (index as i32, flags | IORING_ENTER_REGISTERED_RING),
            None => (self.ring, flags),
        };
        let (pointer, size) = arg.map_or((std::ptr::null(), 0), |arg| {
            (&raw const *arg, size_of::<GetEventsArg>())
        });
        // SAFETY: the argument, if any, is a valid io_uring_getevents_arg whose timespec outlives the call; the
        // entries that are submitted obey the contract of `Uring::push`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                c_long::from(descriptor),
                c_long::from(queued),
                c_long::from(want),
                c_long::from(flags),
                pointer,
                size,
            )
        };
        if result < 0 { Err(Errno::last()) } else { Ok(()) }
    }
}

impl Drop for EnterTarget {
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            update_registered(
                self.ring,
                IORING_UNREGISTER_RING_FDS,
                &mut ResourceUpdate {
                    offset,
                    reserved: 0,
                    data: 0,
                },
            );
        }
    }
}

/// IORING_REGISTER_RING_FDS or IORING_UNREGISTER_RING_FDS of one ring (io_uring_register(2)). `true` if it was done.
fn update_registered(ring: i32, operation: u32, update: &mut ResourceUpdate) -> bool {
    // SAFETY: both operations read and write one io_uring_rsrc_update, which `update` is and stays until the return.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            c_long::from(ring),
            c_long::from(operation),
            &raw mut *update,
            1 as c_long,
        )
    };
    done == 1
}

/// A message without address or control data.
pub(crate) fn message_header(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: msghdr is plain integers and pointers; all zeroes is its empty value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len() as _;
    header
}

/// Sets `sqe->len` of a receive with bundles: the most bytes of one completion (io_uring_prep_recv_multishot(3)); the
/// crate's builder leaves it zero.
pub(crate) fn set_entry_len(entry: &mut Entry, len: u32) {
    /// Offset of `len` in `struct io_uring_sqe`.
    const LEN_OFFSET: usize = 24;
    const _: () = assert!(size_of::<Entry>() == 64, "Entry is not a plain io_uring_sqe any more");
    // SAFETY: `Entry` is a repr(C) wrapper of the 64-byte io_uring_sqe (asserted above), so the offset is inside.
    let field = unsafe { (entry as *mut Entry).cast::<u8>().add(LEN_OFFSET) };
    // SAFETY: the four bytes are the integer field `len`; any value is valid; `entry` is borrowed mutably.
    unsafe { field.cast::<u32>().write_unaligned(len) };
}

/// Lets the kernel choose the port when connecting, so that one source address serves 28,000 connections to each
/// destination instead of 28,000 in all (ip(7), IP_BIND_ADDRESS_NO_PORT; applies to IPv6 as well).
pub(crate) fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the option value is an int that outlives the call; its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Accepts one connection if one is queued; a negative errno otherwise. The accepted socket is blocking, as the ring
/// wants it (accept(2): it does not inherit O_NONBLOCK). The workers of a UNIX listener share one, so that asking first
/// whether something is queued would not do.
pub(crate) fn accept_nonblocking(listener: i32) -> i32 {
    /// Descriptors of one listener share their flags: one thread's restored flags would make another's accept wait.
    static FLAGS: Mutex<()> = Mutex::new(());
    let _flags = FLAGS.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: reads the flags of a descriptor; no memory is involved.
    let flags = unsafe { libc::fcntl(listener, libc::F_GETFL) };
    if flags < 0 {
        return -Errno::last().0;
    }
    // SAFETY: sets a flag of a descriptor; no memory is involved.
    let set = unsafe { libc::fcntl(listener, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if set < 0 {
        return -Errno::last().0;
    }
    // SAFETY: no address is asked for.
    let accepted = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
    let result = if accepted < 0 { -Errno::last().0 } else { accepted };
    // SAFETY: sets a flag of a descriptor; no memory is involved.
    unsafe { libc::fcntl(listener, libc::F_SETFL, flags) };
    result
}

/// A pipe for `size` bytes whose ends never wait: read end, write end, bytes. Fails as well if the kernel lets it have
/// fewer (pipe(7), pipe-user-pages-soft): many short moves cost more than copying.
pub(crate) fn open_pipe(size: u32) -> Result<(i32, i32, u32), Errno> {
    let mut ends = [0; 2];
    // SAFETY: writes two descriptors into `ends`.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(Errno::last());
    }
    let [read, write] = ends;
    // SAFETY: sets the size of a pipe; no memory is involved.
    let got = unsafe { libc::fcntl(read, libc::F_SETPIPE_SZ, size as c_int) };
    if got < size as c_int {
        let errno = if got < 0 { Errno::last() } else { Errno(libc::EPERM) };
        close_pipe(read, write);
        return Err(errno);
    }
    Ok((read, write, got as u32))
}

pub(crate) fn close_pipe(read: i32, write: i32) {
    for end in [read, write] {
        // SAFETY: the caller owns the descriptor and gives it up with this call.
        unsafe { libc::close(end) };
    }
}

/// splice(2) from or to `socket`, never waiting; a negative errno if nothing was moved. SPLICE_F_NONBLOCK speaks of the
/// pipe only. The socket has O_NONBLOCK for no longer than this call: the ring would answer EAGAIN instead of waiting
/// for whatever is submitted meanwhile, which is nothing. Deferred work of the ring runs in io_uring_enter(2) only.
pub(crate) fn splice_nonblocking(from: i32, to: i32, max: u32, socket: i32) -> i32 {
    // SAFETY: sets a flag of a descriptor; no memory is involved. Sockets of the ring have no other flag of this kind.
    if unsafe { libc::fcntl(socket, libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
        return -Errno::last().0;
    }
    let offset = std::ptr::null_mut();
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: without offsets no memory is involved.
    let moved = unsafe { libc::splice(from, offset, to, offset, max as usize, flags) };
    let result = if moved < 0 { -Errno::last().0 } else { moved as i32 };
    // SAFETY: as above.
    unsafe { libc::fcntl(socket, libc::F_SETFL, 0) };
    result
}

/// CPU time of the calling thread (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(result, 0, "every thread has such a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Gives memory of freed objects back to the system. glibc keeps free pages between live ones otherwise.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks and touches only free memory.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// As two workers do that stop at the same time: neither may end up waiting for a client.
    #[test]
    fn emptying_a_shared_listener_never_waits() {
        let path = std::env::temp_dir().join(format!("ringway-shared-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a free path");
        let (done, ended) = channel();
        for _ in 0..2 {
            let (listener, done) = (listener.try_clone().expect("a descriptor"), done.clone());
            std::thread::spawn(move || {
                let empty = (0..20_000).all(|_| accept_nonblocking(listener.as_raw_fd()) == -libc::EAGAIN);
                done.send(empty)
            });
        }
        for _ in 0..2 {
            assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(true), "it waits");
        }
        std::fs::remove_file(path).expect("it is there");
    }
}
