//! Questions to the kernel's routing, over rtnetlink(7): what it would do with a packet, by which rules, through which
//! interface. For rare questions before anything runs; needs no capability, and sees the caller's network namespace.
//!
//! Never changes anything. What an answer says is in `routes/message.rs`.

mod message;

use self::message::{Answer, Family, Request, answers};
use crate::datagram_socket::set_int;
use crate::errno::Errno;
use crate::socket::errno_of;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use self::message::Rule;

/// The kernel answers within the call, before anything could be waited for; longer than this nobody waits.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// What the kernel puts into one answer of a list, at most (netlink(7)).
const ANSWER_BYTES: usize = 32 * 1024;
/// Entries of one list; a machine with more rules, or more addresses of its own, is not asked further.
const ENTRIES_MAX: usize = 1 << 16;

/// What carries a packet's bytes. A packet without ports is of neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Protocol 6.
    Tcp,
    /// Protocol 17.
    Udp,
}

impl Transport {
    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A packet that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Whom it is from. `None`: of this machine, which has yet to choose an address for it.
    pub from: Option<(Transport, SocketAddr)>,
    /// Whom it is for; of the same family.
    pub to: IpAddr,
    /// The interface that it comes in through. `None`: this machine sends it.
    pub comes_in: Option<u32>,
    /// What a packet filter has marked it with; 0: nothing.
    pub mark: u32,
}

/// What the kernel would do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is for this machine.
    Delivered,
    /// It leaves again, or is dropped, as a route says.
    Elsewhere {
        /// Through this interface; 0: none.
        interface: u32,
        /// The table that has the route; 0: not told.
        table: u32,
    },
    /// There is no way for it (EHOSTUNREACH, ENETUNREACH, EACCES), or its sender is one that must not come in there
    /// (EINVAL, EXDEV).
    Refused(Errno),
}

/// A way to ask.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
    /// Of the last question; answers to others are not ours.
    sequence: u32,
}

impl Routes {
    /// Opens a socket for questions.
    ///
    /// # Errors
    /// EAFNOSUPPORT where sockets of this family are forbidden (RestrictAddressFamilies= of systemd), or a lack of
    /// descriptors.
    pub fn open() -> Result<Self, Errno> {
        let open = || {
            let protocol = Some(Protocol::from(libc::NETLINK_ROUTE));
            let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), protocol)?;
            socket.set_read_timeout(Some(ANSWER_MAX))?;
            // Lists are then filtered by the kernel: of a million routes we want the few that deliver.
            set_int(&socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| errno_of(&error))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// What happens to a packet.
    ///
    /// # Errors
    /// Why the kernel could not be asked.
    pub fn fate(&mut self, packet: &Packet) -> Result<Fate, Errno> {
        match self.ask(|sequence| Request::fate(packet, sequence), message::route) {
            Ok(routes) => {
                let route = routes.first().copied().ok_or(Errno(libc::EBADMSG))?;
                Ok(route.fate())
            }
            Err(Failed::Kernel(errno)) => Ok(Fate::Refused(errno)),
            Err(Failed::Asking(errno)) => Err(errno),
        }
    }

    /// The rules by which tables are looked into, in their order.
    ///
    /// # Errors
    /// Why the kernel could not be asked.
    pub fn rules(&mut self, is_ipv6: bool) -> Result<Vec<Rule>, Errno> {
        let family = Family::of(is_ipv6);
        let mut rules = self.ask(|sequence| Request::rules(family, sequence), message::rule)?;
        // As the kernel keeps them; equal ones stay as they are.
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }

    /// Tables that deliver everything to this machine: those with a route `local 0.0.0.0/0`, or `local ::/0`.
    ///
    /// # Errors
    /// Why the kernel could not be asked.
    pub fn tables_that_deliver(&mut self, is_ipv6: bool) -> Result<Vec<u32>, Errno> {
        let family = Family::of(is_ipv6);
        let routes = self.ask(|sequence| Request::local_routes(family, sequence), message::route)?;
        Ok(routes.iter().filter_map(|route| route.delivers_everything()).collect())
    }

    /// An interface's name.
    ///
    /// # Errors
    /// ENODEV if there is none of this index, and why the kernel could not be asked.
    pub fn interface_name(&mut self, index: u32) -> Result<String, Errno> {
        let names = self.ask(|sequence| Request::interface(index, sequence), message::interface_name)?;
        names.into_iter().next().ok_or(Errno(libc::ENODEV))
    }

    /// Asks, and reads until the answer is complete.
    fn ask<T>(
        &mut self,
        request: impl FnOnce(u32) -> Request,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Failed> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.sequence);
        self.socket
            .send(&request.bytes())
            .map_err(|error| Failed::Asking(errno_of(&error)))?;
        let mut found = Vec::new();
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let length = self
                .socket
                .read(&mut buffer)
                .map_err(|error| Failed::Asking(errno_of(&error)))?;
            for answer in answers(buffer.get(..length).unwrap_or_default(), self.sequence) {
                match answer {
                    Answer::Entry { body, more } => {
                        found.extend(read(body));
                        if !more {
                            return Ok(found);
                        }
                    }
                    Answer::End => return Ok(found),
                    Answer::Failed(errno) => return Err(Failed::Kernel(errno)),
                }
                if found.len() > ENTRIES_MAX {
                    return Err(Failed::Asking(Errno(libc::E2BIG)));
                }
            }
        }
    }
}

/// No answer.
enum Failed {
    /// The kernel says no.
    Kernel(Errno),
    /// It was not heard.
    Asking(Errno),
}

impl From<Failed> for Errno {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Kernel(errno) | Failed::Asking(errno) => errno,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(to: &str) -> Packet {
        Packet {
            from: None,
            to: to.parse().expect("an address"),
            comes_in: None,
            mark: 0,
        }
    }

    /// Every machine has a loopback interface with index 1, its local table first, and no rule that swallows everything.
    #[test]
    fn this_machine_knows_itself() {
        let mut routes = Routes::open().expect("netlink");
        assert_eq!(routes.fate(&asked("127.0.0.1")), Ok(Fate::Delivered));
        assert_eq!(routes.interface_name(1).as_deref(), Ok("lo"));
        assert_eq!(routes.interface_name(0x7fff_fff0), Err(Errno(libc::ENODEV)));
        let rules = routes.rules(false).expect("a list");
        let local = rules.first().expect("a rule");
        assert_eq!(
            (local.priority, local.table),
            (0, 255),
            "local comes first (ip-rule(8))"
        );
        assert!(
            rules.iter().any(|rule| rule.table == 254),
            "and main somewhere: {rules:?}"
        );
        let nowhere = Packet {
            comes_in: Some(0x7fff_fff0),
            ..asked("192.0.2.1")
        };
        assert_eq!(routes.fate(&nowhere), Ok(Fate::Refused(Errno(libc::ENODEV))));
    }
}
