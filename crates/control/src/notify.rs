//! Tells the service manager how the process is: sd_notify(3), the datagrams that `Type=notify` of systemd waits for.
//!
//! Owns one socket for as long as one message takes. Must never keep the process waiting for a manager that does not
//! read, and never fail it: what cannot be told is logged. Called by `supervisor`: [`ready`] when every worker serves,
//! [`stopping`] with the first step of the drain, [`status`] whenever `systemctl status` has something new to show.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Says that the service is up: what is ordered after it may start.
pub fn ready() {
    tell("READY=1");
}

/// Says that the service is about to end, so that a slow drain is not taken for a service that still serves.
pub fn stopping() {
    tell("STOPPING=1");
}

/// A line for people; the last one said is shown.
pub fn status(text: &str) {
    tell(&status_message(text));
}

/// Without the variable nobody listens, and there is nothing to do.
fn tell(message: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = deliver(&name, message) {
        let socket = name.display();
        tracing::warn!("the service manager was not told {message:?} over $NOTIFY_SOCKET ({socket}): {error}");
    }
}

/// One message to the socket of this name: a path, or `@` and a name in the abstract namespace (unix(7)).
fn deliver(name: &OsStr, message: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let problem = "a name must begin with / (a path) or @ (the abstract namespace)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(DELIVERY_MAX))?;
    // The kernel takes a datagram whole or not at all.
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

/// A message is a list of assignments, one a line, so a text that brings its own lines would be read as more of them.
fn status_message(text: &str) -> String {
    format!("STATUS={}", text.replace(char::is_control, " "))
}

/// A manager that is being restarted reads nothing for a moment and must still learn of a start; a longer wait would
/// hold up the thread that answers health requests.
const DELIVERY_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
