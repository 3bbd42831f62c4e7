//! Socket options, listening sockets and TCP_INFO: the direct calls that do not go through the ring.
//!
//! Unsafe module: getsockopt(2) of TCP_INFO and SO_MEMINFO, ioctl(2) of SIOCOUTQ, poll(2) for errors. Everything else
//! stands on socket2. Used by the drivers and, before any runtime exists, by whoever binds listeners.

use crate::address::{Address, Source};
use crate::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// An address that a killed process held with an accept in flight stays bound for some milliseconds.
const BIND_RETRY: Duration = Duration::from_millis(50);
const BIND_RETRY_STEP: Duration = Duration::from_millis(5);

/// TCP keepalive (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, whole seconds.
    pub idle: Duration,
    /// Between probes, whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the peer is gone.
    pub count: u8,
}

/// Options of a connected socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// Keepalive probes.
    pub keepalive: Option<Keepalive>,
}

/// Options of a listening socket; accepted sockets inherit what applies to connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Queue of completed connections; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// For accepted connections.
    pub connection: SocketOptions,
}

/// Why an address could not be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// The system call that failed.
    pub call: &'static str,
    /// What it said.
    pub errno: Errno,
}

impl ListenError {
    /// A second descriptor for a listening socket could not be made.
    pub fn duplicating(error: &io::Error) -> Self {
        Self {
            call: "dup",
            errno: errno_of(error),
        }
    }

    /// Somebody else listens there.
    pub const fn is_address_in_use(&self) -> bool {
        self.errno.0 == libc::EADDRINUSE
    }

    /// The user may not listen there.
    pub const fn is_permission_denied(&self) -> bool {
        matches!(self.errno.0, libc::EACCES | libc::EPERM)
    }

    /// The machine does not have the address.
    pub const fn is_address_not_available(&self) -> bool {
        self.errno.0 == libc::EADDRNOTAVAIL
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.errno)
    }
}

impl std::error::Error for ListenError {}

/// What the kernel knows of a TCP connection (TCP_INFO, tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// The connection does not exist any more: both sides have ended in order, or it broke. What it brought before may
    /// still wait to be received.
    pub closed: bool,
    /// It was reset or timed out, and nobody was told yet.
    pub broken: bool,
    /// Since the last acknowledgement or data from the peer.
    pub last_heard: Duration,
    /// Probes or retransmissions since then that the peer did not answer.
    pub unanswered: u32,
    /// Bytes that the kernel holds for the peer: not sent yet, or not acknowledged (SIOCOUTQ, tcp(7)).
    pub outgoing: u32,
    /// The shortest round-trip time of late (net.ipv4.tcp_min_rtt_wlen, five minutes): how far away the peer is, without
    /// what waits in queues on the way. Zero if the kernel does not say; more than an hour if none was measured.
    pub round_trip_min: Duration,
    /// The smoothed round-trip time, queues on the way included. Zero if none was measured.
    pub round_trip: Duration,
}

/// Finds out whether another process (or an earlier listener of this one) holds an address, although SO_REUSEPORT
/// would let us share it: binds once without it, waiting up to 50 ms for a killed predecessor to let go.
pub fn probe_address_free(address: &Address) -> Result<(), ListenError> {
    let Address::Inet(_) = address else { return Ok(()) };
    let deadline = Instant::now() + BIND_RETRY;
    loop {
        let error = match bound_socket(address, false) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if error.errno != Errno(libc::EADDRINUSE) || Instant::now() >= deadline {
            return Err(error);
        }
        std::thread::sleep(BIND_RETRY_STEP);
    }
}

/// Opens a listening socket; several workers may listen on the same address (SO_REUSEPORT). Returns the address as
/// bound, with the port that the kernel chose where 0 was asked for.
///
/// The file of a UNIX socket that nobody listens on any more (its process was killed) is replaced.
pub fn listen(address: &Address, options: &ListenOptions) -> Result<(OwnedFd, Address), ListenError> {
    remove_stale(address);
    let socket = bound_socket(address, true)?;
    if !matches!(address, Address::Unix(_)) {
        set_connection_options(&socket, &options.connection).map_err(failed("setsockopt"))?;
    }
    socket.listen(options.backlog).map_err(failed("listen"))?;
    let bound = socket.local_addr().map_err(failed("getsockname"))?;
    Ok((socket.into(), from_sock_addr(&bound)))
}

/// Removes the file of a UNIX socket that refuses connections. Anything else is left for bind(2) to complain about.
fn remove_stale(address: &Address) {
    let Address::Unix(path) = address else { return };
    let is_socket = path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && refuses(path) {
        // Fails without the right to; bind(2) then says that the address is in use.
        let _ = std::fs::remove_file(path);
    }
}

/// Whether nobody listens on a UNIX socket. One whose process was just killed with an accept in flight still takes a
/// connection; the end of that connection, awaited for up to 50 ms, tells it from one that lives.
fn refuses(path: &Path) -> bool {
    let deadline = Instant::now() + BIND_RETRY;
    loop {
        let mut connection = match UnixStream::connect(path) {
            Ok(connection) => connection,
            Err(error) => return errno_of(&error) == Errno(libc::ECONNREFUSED),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero is an error (set_read_timeout): the time is up.
        if connection.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match connection.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if errno_of(&error).is_reset() => {}
            Ok(_) | Err(_) => return false,
        }
    }
}

fn bound_socket(address: &Address, share: bool) -> Result<Socket, ListenError> {
    let sock_addr = to_sock_addr(address).map_err(failed("bind"))?;
    let tcp = !matches!(address, Address::Unix(_));
    let protocol = tcp.then_some(Protocol::TCP);
    let socket = Socket::new(sock_addr.domain(), Type::STREAM.cloexec(), protocol).map_err(failed("socket"))?;
    if sock_addr.domain() == Domain::IPV6 {
        // Explicit whatever net.ipv6.bindv6only says: [::]:80 and 0.0.0.0:80 are two binds.
        socket.set_only_v6(true).map_err(failed("setsockopt"))?;
    }
    if tcp {
        // Connections of an earlier process in TIME_WAIT do not hold the address.
        socket.set_reuse_address(true).map_err(failed("setsockopt"))?;
        if share {
            socket.set_reuse_port(true).map_err(failed("setsockopt"))?;
        }
    }
    socket.bind(&sock_addr).map_err(failed("bind"))?;
    Ok(socket)
}

/// Binds a socket that will connect. `calls` counts system calls.
pub(crate) fn bind_source(socket: &Socket, source: Source, calls: &mut u64) -> io::Result<()> {
    if let Source::Foreign(ip) = source {
        *calls += 1;
        set_transparent(socket, ip.is_ipv6())?;
    }
    *calls += 1;
    socket.bind(&SocketAddr::new(source.ip(), 0).into())
}

fn set_transparent(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        socket.set_ip_transparent_v6(true)
    } else {
        socket.set_ip_transparent_v4(true)
    }
}

/// Tries out whether this process may connect from foreign addresses ([`Source::Foreign`]) of a family: makes a socket and
/// sets the option.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN and CAP_NET_RAW; EAFNOSUPPORT where the machine does not have the family; and whatever keeps
/// a socket from being made.
pub fn can_be_transparent(is_ipv6: bool) -> Result<(), Errno> {
    let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP)).map_err(|error| errno_of(&error))?;
    set_transparent(&socket, is_ipv6).map_err(|error| errno_of(&error))
}

pub(crate) fn failed(call: &'static str) -> impl Fn(io::Error) -> ListenError {
    move |error| ListenError {
        call,
        errno: errno_of(&error),
    }
}

pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EINVAL))
}

pub(crate) fn to_sock_addr(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Inet(address) => Ok((*address).into()),
        Address::Unix(path) => SockAddr::unix(path),
    }
}

pub(crate) fn from_sock_addr(address: &SockAddr) -> Address {
    address.as_socket().map_or_else(
        || Address::Unix(address.as_pathname().map(ToOwned::to_owned).unwrap_or_default()),
        Address::Inet,
    )
}

pub(crate) fn set_connection_options(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    if options.no_delay {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(Keepalive { idle, interval, count }) = options.keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(idle)
            .with_interval(interval)
            .with_retries(u32::from(count));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// Bounds a receive buffer, unless the system allows less than that.
pub(crate) fn bound_receive_buffer(socket: &Socket, bytes: u32) -> io::Result<()> {
    // The kernel doubles what it is told, for its own overhead (socket(7)).
    let told = bytes as usize / 2;
    static LARGEST: OnceLock<usize> = OnceLock::new();
    let largest = *LARGEST.get_or_init(|| largest_receive_buffer().unwrap_or(0));
    if largest < bytes as usize {
        return Ok(());
    }
    socket.set_recv_buffer_size(told)
}

/// What the system allows: asked of a socket, as net.core.rmem_max cannot be read in every container.
fn largest_receive_buffer() -> io::Result<usize> {
    let scratch = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
    scratch.set_recv_buffer_size(i32::MAX as usize / 2)?;
    scratch.recv_buffer_size()
}

/// Puts Reno in BBR's place. Any other congestion control was chosen for what it does, and stays.
pub(crate) fn leave_bbr(socket: &Socket) -> io::Result<()> {
    if socket.tcp_congestion()?.starts_with(b"bbr") {
        socket.set_tcp_congestion(b"reno")?;
    }
    Ok(())
}

/// `None` for sockets that are not TCP.
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> Option<TcpInfo> {
    /// `TCP_CLOSE` of the kernel's tcp_states.h.
    const TCP_CLOSE: u8 = 7;
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for `len` bytes and the kernel writes at most that many before the call returns.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: zeroed above, and tcp_info is plain integers, so any bytes the kernel wrote or left are valid.
    let info = unsafe { info.assume_init() };
    let closed = info.tcpi_state == TCP_CLOSE;
    Some(TcpInfo {
        closed,
        broken: closed && has_error(fd),
        last_heard: Duration::from_millis(u64::from(info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv))),
        unanswered: u32::from(info.tcpi_probes.max(info.tcpi_retransmits)),
        outgoing: outgoing(fd),
        round_trip_min: Duration::from_micros(info.tcpi_min_rtt.into()),
        round_trip: Duration::from_micros(info.tcpi_rtt.into()),
    })
}

/// Whether an error waits to be told, without taking it (POLLERR, poll(2)).
fn has_error(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call; a timeout of 0 does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLERR != 0
}

/// The state of a socket's send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRoom {
    /// Bytes that fit now; what the kernel adds per packet is not known in advance.
    pub free: u32,
    /// Bytes of the whole buffer.
    pub size: u32,
}

impl SendRoom {
    /// Whether waiting for room would end at once: a third is free (sk_stream_is_writeable of the kernel).
    pub const fn is_writable(self) -> bool {
        self.free >= self.size / 3
    }
}

/// SO_MEMINFO (sock_diag(7)).
pub(crate) fn send_room(fd: BorrowedFd<'_>) -> Option<SendRoom> {
    // Positions in the array; the kernel's sock_diag.h.
    const SEND_BUFFER: usize = 3;
    const WRITE_QUEUED: usize = 5;
    let mut info = [0_u32; 9];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` has room for `len` bytes and the kernel writes at most that many before the call returns.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if result != 0 {
        return None;
    }
    let size = info[SEND_BUFFER];
    // What the kernel's own test of writability looks at. UNIX sockets do not count it: they seem empty.
    Some(SendRoom {
        free: size.saturating_sub(info[WRITE_QUEUED]),
        size,
    })
}

/// SIOCOUTQ; 0 where the kernel does not say.
fn outgoing(fd: BorrowedFd<'_>) -> u32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { bytes.unsigned_abs() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Address {
        Address::Inet(([127, 0, 0, 1], 0).into())
    }

    const OPTIONS: ListenOptions = ListenOptions {
        backlog: 16,
        connection: SocketOptions {
            no_delay: true,
            keepalive: None,
        },
    };

    #[test]
    fn two_workers_share_an_address_that_a_probe_calls_taken() {
        let (_first, bound) = listen(&loopback(), &OPTIONS).expect("a free port");
        let (_second, again) = listen(&bound, &OPTIONS).expect("SO_REUSEPORT");
        assert_eq!(bound, again);
        let error = probe_address_free(&bound).expect_err("somebody listens there");
        assert_eq!(error.errno, Errno(98), "EADDRINUSE");
    }

    #[test]
    fn ipv6_and_ipv4_wildcards_are_two_binds() {
        // Somebody else may hold a port's IPv4 side by chance; not that of all of these.
        let free = (0..20).any(|_| {
            let (_six, bound) = listen(&Address::Inet("[::]:0".parse().expect("an address")), &OPTIONS).expect("IPv6");
            let Address::Inet(bound) = bound else {
                panic!("not {bound}")
            };
            probe_address_free(&Address::Inet(([0, 0, 0, 0], bound.port()).into())).is_ok()
        });
        assert!(free, "IPV6_V6ONLY leaves the IPv4 address free");
    }

    #[test]
    fn a_unix_socket_in_use_is_kept_and_a_stale_one_replaced() {
        let path = std::env::temp_dir().join(format!("ringway-socket-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        let (first, _) = listen(&address, &OPTIONS).expect("a free path");
        let error = listen(&address, &OPTIONS).expect_err("somebody listens there");
        assert!(error.is_address_in_use());
        drop(first);
        let (_second, _) = listen(&address, &OPTIONS).expect("the file of a socket that is gone is replaced");
        std::fs::remove_file(path).expect("it is there");
    }

    /// As after a kill: the listener is let go of while the question waits in its queue.
    #[test]
    fn a_unix_socket_that_is_about_to_go_is_waited_for() {
        let path = std::env::temp_dir().join(format!("ringway-going-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        let (first, _) = listen(&address, &OPTIONS).expect("a free path");
        let first = std::os::unix::net::UnixListener::from(first);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The question has come when something is queued; closing resets it.
                let mut poll = libc::pollfd {
                    fd: first.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one pollfd, which outlives the call.
                assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 5_000) }, 1);
            });
            listen(&address, &OPTIONS).expect("the file of a socket that goes is replaced");
        });
        std::fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn only_bbr_is_replaced() {
        for (before, after) in [
            ("reno", "reno"),
            ("cubic", "cubic"),
            ("dctcp", "dctcp"),
            ("bbr", "reno"),
        ] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            if let Err(error) = socket.set_tcp_congestion(before.as_bytes()) {
                println!("left out, as {before} cannot be had here: {error}");
                continue;
            }
            if let Err(error) = leave_bbr(&socket) {
                assert_eq!(errno_of(&error), Errno(libc::EPERM), "nothing else is in the way");
                println!("left out, as Reno is not allowed here");
                continue;
            }
            let name = socket.tcp_congestion().expect("getsockopt");
            // The kernel pads the name with zeros.
            assert_eq!(
                String::from_utf8_lossy(&name).trim_end_matches('\0'),
                after,
                "instead of {before}"
            );
        }
    }

    #[test]
    fn accepted_sockets_inherit_options() {
        let (listener, bound) = listen(&loopback(), &OPTIONS).expect("a free port");
        let Address::Inet(bound) = bound else {
            panic!("not {bound}")
        };
        let _client = std::net::TcpStream::connect(bound).expect("connect");
        let (accepted, _) = std::net::TcpListener::from(listener).accept().expect("accept");
        assert!(accepted.nodelay().expect("getsockopt"));
    }
}
