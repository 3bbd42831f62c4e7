//! Where the binaries are: the one under test, its variant with injected faults, and the launcher of this package.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test: `RINGWAY_BIN`, else a release build (which is a look at time stamps when it is fresh).
pub fn ringway() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("RINGWAY_BIN") {
        Some(path) => path.into(),
        None => {
            build(&target_dir(), &["--release"]);
            target_dir().join("release/ringway")
        }
    })
}

/// The same with the cargo feature `faults`: `RINGWAY_FAULTS_BIN`, else a development build, whose dependencies the unit
/// tests have built; optimization changes nothing that a panic does.
pub fn ringway_with_faults() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("RINGWAY_FAULTS_BIN") {
        Some(path) => path.into(),
        None => {
            build(&target_dir(), &["--features", "faults"]);
            // The next build without the feature takes the place of this one.
            let kept = target_dir().join("ringway-with-faults");
            std::fs::copy(target_dir().join("debug/ringway"), &kept).expect("it was just built");
            kept
        }
    })
}

/// The launcher of this package, built by cargo with the tests.
pub fn launcher() -> PathBuf {
    own("ringway-test-launch")
}

/// A backend as a program, built in the same way.
pub fn test_backend() -> PathBuf {
    own("ringway-test-backend")
}

fn own(name: &str) -> PathBuf {
    let path = profile_dir().join(name);
    assert!(
        path.exists(),
        "{} is missing: run the tests with `cargo test -p ringway-tests`",
        path.display()
    );
    path
}

/// `target/debug` or `target/release`: two above the test executable in `deps`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its executable");
    test.ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps")
        .to_owned()
}

fn target_dir() -> PathBuf {
    profile_dir()
        .parent()
        .expect("a profile lies in the target directory")
        .to_owned()
}

fn build(target: &Path, options: &[&str]) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--package", "ringway", "--target-dir"])
        .arg(target)
        .args(options)
        .current_dir(workspace);
    // What cargo tells of this package: build scripts that look at it (ring's) would build everything anew.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "building ringway with {options:?} failed");
}
