//! A panic is logged like everything else. The hook and the log are the process's, so a process of its own panics.

use ringway_control::logs::{self, Format};
use std::process::Command;

const ROLE: &str = "RINGWAY_TEST_PANICS";

#[test]
fn a_panic_is_one_json_line() {
    if std::env::var_os(ROLE).is_some() {
        let logs = logs::start(Format::Json, logs::parse_levels("info").expect("valid")).expect("starts");
        let caught = std::panic::catch_unwind(|| panic!("two\nlines"));
        assert!(caught.is_err());
        logs.flush();
        return;
    }
    let own = std::env::current_exe().expect("has a path");
    let mut child = Command::new(own);
    child
        .args(["--exact", "a_panic_is_one_json_line", "--nocapture"])
        .env(ROLE, "1")
        .env("RUST_BACKTRACE", "0");
    let output = child.output().expect("starts");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let line = said.strip_suffix('\n').expect("ends its line");
    let event: serde_json::Value = serde_json::from_str(line).expect("one JSON object");
    assert_eq!(event["message"], "panicked, this is a bug of ours: two\nlines");
    assert_eq!(event["level"], "ERROR");
    assert!(
        event["place"]
            .as_str()
            .expect("has a place")
            .contains("logs_of_panics.rs:"),
        "{said}"
    );
}
