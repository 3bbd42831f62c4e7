//! Reading files and directories.

use ringway_config::{LoadError, load};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ringway-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("write a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LISTENERS: &str = "listeners: { web: { bind: 0.0.0.0:80, protocol: tcp, pool: web } }\n";
const POOLS: &str = "pools: { web: { backends: [10.0.0.1:80] } }\n";

fn sentence(path: &Path) -> String {
    match load(&[path.to_owned()]) {
        Err(LoadError::CannotOpen { sentence }) => sentence,
        other => panic!("expected a sentence, not {other:?}"),
    }
}

#[test]
fn a_directory_is_read_in_the_order_of_names() {
    let directory = Directory::new();
    directory.file("b.yaml", LISTENERS);
    directory.file("a.yml", POOLS);
    directory.file("notes.txt", "not: read");
    directory.file(".b.yaml", "left: behind by an editor");
    fs::create_dir(directory.0.join("c.yaml")).expect("a directory with a misleading name");
    let checked = load(std::slice::from_ref(&directory.0)).expect("valid");
    assert_eq!(&*checked.model.listeners[0].name, "web");
    directory.file("c.yml", "workers: 1\nworker: 2\n");
    let error = load(std::slice::from_ref(&directory.0))
        .expect_err("unknown key")
        .to_string();
    let expected = format!(
        "{}:2:1: the top level has no key \"worker\"\n",
        directory.0.join("c.yml").display()
    );
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn what_cannot_be_opened_is_a_sentence() {
    let directory = Directory::new();
    let missing = directory.0.join("missing.yaml");
    let shown = missing.display();
    assert_eq!(
        sentence(&missing),
        format!("{shown} does not exist; give the path of a configuration file")
    );
    assert_eq!(
        sentence(&directory.0),
        format!("{} has no *.yaml or *.yml file", directory.0.display())
    );
    assert!(matches!(load(&[]), Err(LoadError::CannotOpen { .. })));
    let large = directory.file("large.yaml", vec![b'#'; (1 << 20) + 1]);
    assert!(
        sentence(&large).contains("larger than 1024 KiB"),
        "{}",
        sentence(&large)
    );
    let secret = directory.file("secret.yaml", LISTENERS);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("chmod");
    // root reads it all the same
    if fs::read(&secret).is_err() {
        assert!(sentence(&secret).contains("permission denied"), "{}", sentence(&secret));
    }
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    assert!(sentence(Path::new("/dev/zero")).contains("larger than 1024 KiB"));
}

#[test]
fn a_file_that_is_not_text_has_a_place() {
    let directory = Directory::new();
    let file = directory.file("latin1.yaml", b"# caf\xc3\xa9\npools: # caf\xe9 \n");
    let Err(LoadError::Problems(diagnostics)) = load(std::slice::from_ref(&file)) else {
        panic!("not UTF-8")
    };
    let shown = file.display();
    let expected = format!(
        "{shown}:2:13: the file is not UTF-8 text\n  |\n2 | pools: # caf\u{fffd}\n  |             ^ save it as UTF-8\n"
    );
    assert_eq!(diagnostics.to_string(), expected);
}
