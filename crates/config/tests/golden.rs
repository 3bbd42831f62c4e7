//! Golden diagnostics: `tests/golden/NAME.yaml` (or `NAME/*.yaml`, several files) and what is said about it, `NAME.txt`.
//!
//! `RINGWAY_GOLDEN=rewrite cargo test -p ringway-config --test golden` writes the expectations anew; read the difference
//! before it is committed.

use ringway_config::{Source, parse};
use std::fs;
use std::path::{Path, PathBuf};

fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("5432".to_owned()),
        "HOST" => Some("db".to_owned()),
        "TIMEOUT" => Some("5".to_owned()),
        "PROTOCOL" => Some("tcp".to_owned()),
        _ => None,
    }
}

fn sources(path: &Path) -> Vec<Source> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = fs::read_dir(path)
            .expect("golden directory")
            .map(|entry| entry.expect("entry").path())
            .collect();
        files.sort();
    }
    let source = |file: &PathBuf| Source {
        name: file.file_name().expect("a name").to_string_lossy().into_owned(),
        text: fs::read_to_string(file).expect("golden file"),
    };
    files.iter().map(source).collect()
}

#[test]
fn diagnostics_are_as_reviewed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let rewrite = std::env::var("RINGWAY_GOLDEN").is_ok_and(|value| value == "rewrite");
    let mut inputs: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("golden")
        .map(|entry| entry.expect("entry").path())
        .collect();
    inputs.retain(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "yaml"));
    inputs.sort();
    assert!(
        inputs.len() >= 20,
        "only {} inputs in {}",
        inputs.len(),
        directory.display()
    );
    let mut different = Vec::new();
    for input in inputs {
        let said = match parse(&sources(&input), &env) {
            Ok(checked) => format!("valid\n{}", checked.warnings),
            Err(diagnostics) => diagnostics.to_string(),
        };
        let expected = input.with_extension("txt");
        if rewrite {
            fs::write(&expected, &said).expect("write the expectation");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            different.push(format!("--- {} now says:\n{said}", expected.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
