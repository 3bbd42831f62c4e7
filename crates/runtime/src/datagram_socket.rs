//! Datagram sockets: binding, connecting, and the options that make the kernel tell what comes with a datagram.
//!
//! Unsafe module: setsockopt(2) of options that socket2 lacks. Used by the drivers and, before any runtime exists, by
//! whoever binds listeners.

use crate::address::Source;
use crate::datagram::{DatagramOptions, UDP_GRO};
use crate::socket::{ListenError, bind_source, errno_of, failed};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

/// Finds out whether another process (or an earlier listener of this one) holds an address, although SO_REUSEPORT would let
/// us share it: binds once without it.
///
/// # Errors
/// EADDRINUSE, and whatever else binding would meet.
pub fn probe_datagram_address_free(address: SocketAddr) -> Result<(), ListenError> {
    bound(address, false).map(|_| ())
}

/// Whether an address is one of this machine's: whether it can be bound to. Opens a socket, so for rare questions. Where
/// every address can be bound to (net.ipv4.ip_nonlocal_bind) it is always `false`.
pub fn is_own_address(address: IpAddr) -> bool {
    // Nobody has these (RFC 5737, RFC 3849).
    const NOBODYS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    static TELLS: OnceLock<[bool; 2]> = OnceLock::new();
    let binds = |address| bound(SocketAddr::new(address, 0), false).is_ok();
    let tells = TELLS.get_or_init(|| NOBODYS.map(|nobodys| !binds(nobodys)));
    tells[usize::from(address.is_ipv6())] && binds(address)
}

/// Binds a datagram socket; several workers may bind the same address (SO_REUSEPORT), and the kernel sends a client's
/// datagrams to one of them by a hash of both addresses. Returns the address as bound, with the port that the kernel chose
/// where 0 was asked for.
///
/// # Errors
/// The call that failed, and why.
pub fn bind_datagrams(address: SocketAddr, options: &DatagramOptions) -> Result<(OwnedFd, SocketAddr), ListenError> {
    let socket = bound(address, true)?;
    set_buffers(&socket, options).map_err(failed("setsockopt"))?;
    tell_all(&socket, address.is_ipv6(), options).map_err(failed("setsockopt"))?;
    // Our own address that a datagram was sent to: an answer must come from it.
    let (level, name) = if address.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    set_int(&socket, level, name, 1).map_err(failed("setsockopt"))?;
    let bound = socket.local_addr().map_err(failed("getsockname"))?;
    let bound = bound.as_socket().unwrap_or(address);
    Ok((socket.into(), bound))
}

/// What the kernel keeps for a socket until it is taken, bytes of its own accounting: less than was asked for where
/// net.core.rmem_max is less and this process may not exceed it. `None`: it does not say.
pub fn receive_buffer(socket: &OwnedFd) -> Option<u32> {
    let bytes = socket2::SockRef::from(socket).recv_buffer_size().ok()?;
    u32::try_from(bytes).ok()
}

/// A socket that is connected: it hears of its peer only, and of ICMP errors that concern it. `calls` counts system calls.
pub(crate) fn connect_datagrams(
    to: SocketAddr,
    source: Option<Source>,
    options: &DatagramOptions,
    calls: &mut u64,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    *calls += 5;
    set_buffers(&socket, options)?;
    tell_all(&socket, to.is_ipv6(), options)?;
    if let Some(source) = source {
        bind_source(&socket, source, calls)?;
    }
    socket.connect(&to.into())?;
    Ok(socket)
}

fn bound(address: SocketAddr, share: bool) -> Result<Socket, ListenError> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP)).map_err(failed("socket"))?;
    if address.is_ipv6() {
        // Explicit whatever net.ipv6.bindv6only says: [::]:53 and 0.0.0.0:53 are two binds.
        socket.set_only_v6(true).map_err(failed("setsockopt"))?;
    }
    if share {
        socket.set_reuse_port(true).map_err(failed("setsockopt"))?;
    }
    socket.bind(&address.into()).map_err(failed("bind"))?;
    Ok(socket)
}

/// Traffic class, trains, and how many the kernel had to drop.
fn tell_all(socket: &Socket, is_ipv6: bool, options: &DatagramOptions) -> io::Result<()> {
    if is_ipv6 {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    }
    set_int(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    if !options.apart {
        // A kernel or device without it sends trains in pieces; that is only slower.
        let _ = set_int(socket, libc::IPPROTO_UDP, UDP_GRO, 1);
    }
    Ok(())
}

/// More than net.core.rmem_max where this process may (CAP_NET_ADMIN), else as much as there is.
fn set_buffers(socket: &Socket, options: &DatagramOptions) -> io::Result<()> {
    for (bytes, force, plain) in [
        (options.receive_buffer, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (options.send_buffer, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        if bytes == 0 {
            continue;
        }
        // The kernel doubles what it is told, for its own overhead (socket(7)).
        let told = i32::try_from(bytes / 2).unwrap_or(i32::MAX / 2);
        match set_int(socket, libc::SOL_SOCKET, force, told) {
            Err(error) if errno_of(&error).is_refusal() => set_int(socket, libc::SOL_SOCKET, plain, told)?,
            other => other?,
        }
    }
    Ok(())
}

pub(crate) fn set_int(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is one int, which outlives the call; the descriptor is borrowed from an open socket.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn two_workers_share_an_address_that_a_probe_calls_taken() {
        let options = DatagramOptions {
            receive_buffer: 1 << 20,
            ..DatagramOptions::default()
        };
        let (_first, address) = bind_datagrams(([127, 0, 0, 1], 0).into(), &options).expect("a free port");
        let (_second, again) = bind_datagrams(address, &options).expect("SO_REUSEPORT");
        assert_eq!(address, again);
        let error = probe_datagram_address_free(address).expect_err("somebody is bound there");
        assert_eq!(error.errno, Errno(98), "EADDRINUSE");
    }

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        for (text, is_ours) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("::1", true),
            ("192.0.2.1", false),
        ] {
            assert_eq!(is_own_address(text.parse().expect("an address")), is_ours, "{text}");
        }
    }

    #[test]
    fn buffers_are_as_large_as_asked_for_or_as_the_system_allows() {
        let options = DatagramOptions {
            receive_buffer: 1 << 17,
            send_buffer: 1 << 16,
            ..DatagramOptions::default()
        };
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (socket, _) = bind_datagrams(address.parse().expect("an address"), &options).expect("a free port");
            let socket = Socket::from(socket);
            assert_eq!(socket.recv_buffer_size().expect("SO_RCVBUF"), 1 << 17);
            assert_eq!(socket.send_buffer_size().expect("SO_SNDBUF"), 1 << 16);
        }
    }
}
