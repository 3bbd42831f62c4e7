//! The commands `demo` and `status` as people use them: the demo serves, the status tells of it, Ctrl-C ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

/// A running demo that tells in lines; killed if the test ends early.
struct Demo {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["demo", "--port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(process.stdout.take().expect("is piped"));
        Self { process, lines }
    }

    /// The next line that holds `text`; the process' end is a failure.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("UTF-8");
            assert!(read > 0, "ended without \"{text}\":\n{seen}");
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// The address in the next line that says `curl ADDRESS`, with what it shows.
    fn try_out(&mut self, shows: &str) -> String {
        let line = self.wait_for(shows);
        let address = line.split_whitespace().nth(1).expect("curl has an address");
        address.trim_end_matches("/metrics").to_owned()
    }

    fn interrupt(&self) {
        let sent = Command::new("kill")
            .args(["-s", "INT", &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill starts").success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .expect("sends");
    stream.shutdown(Shutdown::Write).expect("ends");
    let mut answer = String::new();
    // One connection in ten is reset by the backend that fails.
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn status(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.arg("status").args(args).output().expect("the binary starts")
}

#[test]
fn the_demo_serves_tells_its_status_and_ends_with_a_farewell() {
    let mut demo = Demo::start(&["--admin", "127.0.0.1:0"]);
    demo.wait_for("ringway demo serves");
    let in_turns = demo.try_out("round_robin: ");
    let admin = demo.try_out("what Prometheus scrapes");
    let answers: Vec<String> = (0..6).map(|_| ask(&in_turns)).collect();
    for name in ["backend-a", "backend-b"] {
        let hello = format!("hello from {name} (");
        assert!(answers.iter().any(|answer| answer.contains(&hello)), "{answers:?}");
    }

    let table = status(&["--admin", &admin]);
    assert_eq!(table.status.code(), Some(0));
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    for text in ["least_connections: ", "backend-c", &in_turns] {
        assert!(table.contains(text), "{table}");
    }
    let document = status(&["--admin", &admin, "--json"]);
    let document = String::from_utf8(document.stdout).expect("UTF-8");
    assert!(document.starts_with('{') && document.ends_with("}\n"), "{document}");

    demo.interrupt();
    let farewell = demo.wait_for("the demo is over after ");
    assert!(farewell.contains(" over 3 listeners, "), "{farewell}");
    assert_eq!(demo.process.wait().expect("ends").code(), Some(0));
}

#[test]
fn taken_ports_are_skipped() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("is bound").to_string();
    let mut demo = Demo::start(&["--admin", &address]);
    assert_ne!(demo.try_out("what Prometheus scrapes"), address);
}

#[test]
fn where_nothing_answers_status_says_so_and_exits_with_3() {
    let free = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr();
    let free = free.expect("is bound").to_string();
    for args in [
        &["--admin", &*free] as &[&str],
        &["--admin", &free, "--json"],
        &["--admin", &free, "--watch"],
    ] {
        let output = status(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!("ringway: nothing answers at {free}: is ringway running, and with this admin port?\n")
        );
    }
}
