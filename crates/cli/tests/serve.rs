//! The whole process: it serves, tells so, and stops as asked. Over UNIX sockets, so that it needs no port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// A running balancer between two sockets in a folder of its own; killed if the test ends early.
struct Running {
    process: Child,
    log: BufReader<ChildStderr>,
    folder: PathBuf,
    admin: String,
}

impl Running {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringway-serve-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("makes the folder");
        let backend = UnixListener::bind(folder.join("backend")).expect("binds");
        thread::spawn(move || backend.incoming().flatten().for_each(echo));
        let sockets = format!(
            "unix:{}=unix:{}",
            folder.join("front").display(),
            folder.join("backend").display()
        );
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["run", "--workers", "2", "--admin", "127.0.0.1:0", "--tcp", &sockets])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = BufReader::new(process.stderr.take().expect("is piped"));
        let mut running = Self {
            process,
            log,
            folder,
            admin: String::new(),
        };
        let line = running.wait_for("admin port answers");
        line.trim_end()
            .rsplit_once('=')
            .expect("names its address")
            .1
            .clone_into(&mut running.admin);
        assert!(running.wait_for("serving listener=").contains("/front"));
        running.wait_for("ready with 2 workers (as configured; ");
        running
    }

    /// The next line that holds `text`; the process' end is a failure.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("UTF-8");
            assert!(read > 0, "ended without \"{text}\":\n{seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill starts").success());
    }

    fn ask(&self, path: &str) -> String {
        let mut admin = TcpStream::connect(&self.admin).expect("connects");
        write!(admin, "GET {path} HTTP/1.0\r\n\r\n").expect("sends");
        let mut answer = String::new();
        admin.read_to_string(&mut answer).expect("answers");
        answer
    }

    /// A client that has proved that its bytes come back.
    fn client(&self) -> UnixStream {
        let mut client = UnixStream::connect(self.folder.join("front")).expect("connects");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
        client.write_all(b"hello").expect("sends");
        let mut back = [0; 5];
        client.read_exact(&mut back).expect("comes back");
        assert_eq!(&back, b"hello");
        client
    }

    /// The rest of the log, and how it ended.
    fn end(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("UTF-8");
        (rest, self.process.wait().expect("ends"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn echo(stream: UnixStream) {
    thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
}

#[test]
fn serves_then_lets_relays_finish_and_exits_with_0() {
    let mut running = Running::start("drain");
    let client = running.client();
    assert!(running.ask("/health/ready").ends_with("{\"status\":\"ready\"}"));
    let metrics = running.ask("/metrics");
    assert!(
        metrics.contains("\nringway_listener_connections{listener=\"unix-1\"} 1\n"),
        "{metrics}"
    );

    running.signal("HUP");
    running.wait_for("SIGHUP ignored: reload does not exist in this version");
    running.signal("TERM");
    running.wait_for("stopped accepting; relays may finish relays=1");
    let answer = running.ask("/health/ready");
    assert!(
        answer.starts_with("HTTP/1.0 503") && answer.ends_with("{\"status\":\"draining\"}"),
        "{answer}"
    );
    assert!(running.ask("/health/live").ends_with("{\"status\":\"alive\"}"));

    drop(client);
    let (rest, status) = running.end();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(rest.contains("stopped: every relay finished"), "{rest}");
}

#[test]
fn a_second_signal_resets_what_is_left_and_exits_with_0() {
    let mut running = Running::start("second");
    let mut client = running.client();
    running.signal("INT");
    running.wait_for("stopped accepting; relays may finish relays=1");
    running.signal("TERM");
    running.wait_for("resetting the relays that are left relays=1 why=\"a second signal came\"");
    let mut byte = [0];
    assert!(
        matches!(client.read(&mut byte), Ok(0) | Err(_)),
        "the relay still lives"
    );
    let (rest, status) = running.end();
    assert_eq!(status.code(), Some(0), "{rest}");
}
