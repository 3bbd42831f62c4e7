//! Messages as a service manager receives them; the sockets are the test's own.

use super::*;
use std::path::PathBuf;
use std::time::Instant;

/// A socket in a directory of its own, which goes with it.
struct Manager {
    socket: UnixDatagram,
    dir: PathBuf,
}

impl Manager {
    fn listen(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ringway-notify-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let socket = UnixDatagram::bind(dir.join("notify")).expect("the path is free");
        let socket = bounded(socket);
        Self { socket, dir }
    }

    fn name(&self) -> PathBuf {
        self.dir.join("notify")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // What stays behind is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// No test waits longer than this for a message.
fn bounded(socket: UnixDatagram) -> UnixDatagram {
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket takes a limit");
    socket
}

fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).expect("a message arrives");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn messages_reach_a_socket_with_a_path_one_by_one() {
    let manager = Manager::listen("path");
    for message in ["READY=1", "STATUS=3 workers serve", "STOPPING=1"] {
        deliver(manager.name().as_os_str(), message).expect("the manager listens");
    }
    let all = [(); 3].map(|()| heard(&manager.socket));
    assert_eq!(all, ["READY=1", "STATUS=3 workers serve", "STOPPING=1"]);
}

#[test]
fn a_name_with_an_at_sign_is_in_the_abstract_namespace() {
    let name = format!("ringway-notify-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let socket = bounded(UnixDatagram::bind_addr(&address).expect("the name is free"));
    deliver(OsStr::new(&format!("@{name}")), "READY=1").expect("the manager listens");
    assert_eq!(heard(&socket), "READY=1");
}

#[test]
fn a_status_stays_one_assignment() {
    assert_eq!(
        status_message("draining: 7 relays left"),
        "STATUS=draining: 7 relays left"
    );
    assert_eq!(status_message("a\nMAINPID=1\r\0b"), "STATUS=a MAINPID=1  b");
}

#[test]
fn where_nobody_listens_the_error_says_so() {
    let gone = Manager::listen("gone").name();
    let error = deliver(gone.as_os_str(), "READY=1").expect_err("its directory was removed");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = deliver(OsStr::new("vsock:2:1234"), "READY=1").expect_err("not a UNIX socket");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let too_long = format!("/{}", "x".repeat(200));
    assert!(
        deliver(OsStr::new(&too_long), "READY=1").is_err(),
        "sun_path has 108 bytes"
    );
}

#[test]
fn a_manager_that_does_not_read_costs_a_bounded_time() {
    let manager = Manager::listen("full");
    let began = Instant::now();
    // The queue of a datagram socket (net.unix.max_dgram_qlen) is far shorter than this.
    let told = (0..100_000).map(|_| deliver(manager.name().as_os_str(), "STATUS=x"));
    let error = told.filter_map(Result::err).next().expect("the queue becomes full");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
