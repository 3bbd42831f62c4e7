//! The binary's face: help as stored, exit codes, and sentences for what goes wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn ringway(args: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_ringway");
    Command::new(binary)
        .args(args)
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Exit code, standard output, standard error.
fn outcome(args: &[&str]) -> (i32, String, String) {
    let output = ringway(args);
    (
        output.status.code().expect("exits"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A folder that removes itself.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringway-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("makes the folder");
        Self(folder)
    }

    fn file(&self, name: &str, yaml: &str) -> String {
        let file = self.0.join(name);
        std::fs::write(&file, yaml).expect("writes");
        file.to_str().expect("UTF-8").to_owned()
    }

    /// A value of --tcp that needs no port.
    fn listener(&self) -> String {
        format!("unix:{}=127.0.0.1:1", self.0.join("socket").display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const GOOD: &str = "\
listeners:
  postgres: { bind: 127.0.0.1:5432, protocol: tcp, pool: postgres }
  redis: { bind: 127.0.0.1:6379, protocol: tcp, pool: redis }
pools:
  postgres:
    balance: least_connections
    backends: [10.0.0.11:5432, { address: 10.0.0.12:5432, weight: 2 }, 10.0.0.13:5432]
  redis: { backends: [10.0.1.1:6379, 10.0.1.2:6379] }
";

#[test]
fn help_texts_are_as_stored() {
    for (args, name) in [
        (&["--help"] as &[&str], "help"),
        (&["run", "--help"], "help-run"),
        (&["check", "--help"], "help-check"),
        (&["status", "--help"], "help-status"),
        (&["demo", "--help"], "help-demo"),
    ] {
        let (code, actual, _) = outcome(args);
        assert_eq!(code, 0);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
        if std::env::var_os("RINGWAY_BLESS").is_some() {
            std::fs::write(&file, &actual).expect("writes the golden file");
        }
        let stored = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            stored == actual,
            "{name} differs; run the test with RINGWAY_BLESS=1 and look:\n{actual}"
        );
        let widest = actual.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= 120, "{name} is {widest} columns wide");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(
        outcome(&["--version"]).1,
        concat!("ringway ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn run_without_anything_to_serve_says_how() {
    let (code, _, said) = outcome(&["run"]);
    assert_eq!(code, 2);
    assert!(said.starts_with("ringway: nothing to serve: "), "{said}");
    assert!(
        said.contains("\n  ringway run --config ringway.yaml\n") && said.contains("--tcp 0.0.0.0:5432="),
        "{said}"
    );
}

#[test]
fn wrong_flags_are_refused_with_what_would_be_right() {
    for (args, right) in [
        (&["run", "--conifg", "x"] as &[&str], "'--config'"),
        (&["rum"], "'run'"),
        (
            &["run", "--tcp", "a=b", "--workers", "0"],
            "a number from 1 to 1024, or auto",
        ),
        (
            &["run", "--tcp", "a=b", "--workers", "1025"],
            "a number from 1 to 1024, or auto",
        ),
        (&["run", "--tcp", "a=b", "--admin", "9900"], "127.0.0.1:9900, or off"),
        (&["run", "--tcp", "a=b", "--log-level", "inof"], "use error, warn, info"),
        (&["run", "--tcp", "a=b", "--log-format", "jsno"], "'json'"),
        (&["run", "--tcp", "a=b", "--config", "x"], "cannot be used with"),
        (&["run", "--config", "x", "--balance", "ip_hash"], "cannot be used with"),
        (&["run", "--balance", "ip_hash"], "--tcp"),
        (&["check"], "\n  ringway check ringway.yaml\n"),
        (&["run", "--tcp", "a=b", "x"], "cannot be used with"),
        (
            &["status", "--admin", "9900"],
            "an address with a port, like 127.0.0.1:9900",
        ),
        (&["status", "--json", "--watch"], "cannot be used with"),
        (&["demo", "--port", "65536"], "--port"),
    ] {
        let (code, _, said) = outcome(args);
        assert_eq!(code, 2, "{args:?}");
        assert!(said.contains(right), "{args:?}: {said}");
    }
}

#[test]
fn check_sums_up_what_it_accepts() {
    let folder = Folder::new("good");
    let file = folder.file("ringway.yaml", GOOD);
    for args in [&["check", &file] as &[&str], &["check", "--config", &file]] {
        let (code, out, said) = outcome(args);
        assert_eq!((code, &*out, &*said), (0, "ok: 2 listeners, 2 pools, 5 backends\n", ""));
    }
}

#[test]
fn check_shows_warnings_and_accepts() {
    let folder = Folder::new("warned");
    let file = folder.file(
        "ringway.yaml",
        &format!("{GOOD}  spare: {{ backends: [10.0.2.1:80] }}\n"),
    );
    let (code, out, said) = outcome(&["check", &file]);
    assert_eq!((code, &*out), (0, "ok: 2 listeners, 3 pools, 6 backends\n"));
    assert!(
        said.contains(&format!("{file}:9:3: warning: ")) && said.contains("spare"),
        "{said}"
    );
}

#[test]
fn check_shows_all_problems_with_their_place() {
    let folder = Folder::new("bad");
    let yaml = GOOD
        .replace("pool: redis", "pool: rediss")
        .replace("weight: 2", "weight: 0");
    let file = folder.file("ringway.yaml", &yaml);
    let (code, out, said) = outcome(&["check", &file]);
    assert_eq!((code, &*out), (1, ""));
    // Counted by hand in GOOD.
    assert!(
        said.contains(&format!("{file}:3:55: ")) && said.contains("rediss"),
        "{said}"
    );
    assert!(
        said.contains(&format!("{file}:7:67: ")) && said.contains("weight"),
        "{said}"
    );
    // `run` says the same and does not start.
    let (code, _, also_said) = outcome(&["run", "--config", &file]);
    assert_eq!((code, also_said), (1, said));
}

#[test]
fn a_file_that_cannot_be_opened_is_exit_code_2() {
    let folder = Folder::new("missing");
    let missing = folder.0.join("no-such.yaml");
    let missing = missing.to_str().expect("UTF-8");
    for args in [&["check", missing] as &[&str], &["run", "--config", missing]] {
        let (code, out, said) = outcome(args);
        assert_eq!((code, &*out), (2, ""));
        assert!(
            said.contains("no-such.yaml") && said.contains("does not exist"),
            "{said}"
        );
    }
}

#[test]
fn with_json_a_refusal_is_one_json_line() {
    let (code, _, said) = outcome(&["run", "--tcp", "nonsense", "--log-format", "json"]);
    assert_eq!(code, 1);
    let line = said.strip_suffix('\n').expect("ends its line");
    assert!(
        line.starts_with('{') && line.ends_with('}') && !line.contains('\n'),
        "{said}"
    );
    assert!(
        line.contains("\"level\":\"ERROR\"") && line.contains("nonsense"),
        "{line}"
    );
}

#[test]
fn a_descriptor_limit_that_is_too_small_is_refused_with_the_arithmetic() {
    let command = "ulimit -n 25 && exec \"$0\" run --tcp \"$1\" --workers 1 --admin off";
    let (binary, folder) = (env!("CARGO_BIN_EXE_ringway"), Folder::new("limit"));
    let output = Command::new("sh")
        .args(["-c", command, binary, &folder.listener()])
        .output()
        .expect("sh starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    // 15 of the process, and for the worker its ring, its wake-up, 6 to shed, 16 for pipes, 1 listener; a connection takes 2 more.
    assert!(
        said.starts_with("ringway: the descriptor limit is 25, but 40 "),
        "{said}"
    );
    assert!(said.contains("to 42 or more"), "{said}");
}

#[test]
fn an_admin_port_in_use_is_refused_before_anything_serves() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = holder.local_addr().expect("is bound").to_string();
    let folder = Folder::new("admin");
    let (code, _, said) = outcome(&["run", "--tcp", &folder.listener(), "--admin", &address]);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains(&format!("ringway: admin: cannot listen on {address}: ")),
        "{said}"
    );
    assert!(
        said.contains("another process listens there") && !said.contains("serving"),
        "{said}"
    );
}
