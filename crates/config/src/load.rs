//! Files -> configuration. The only place of this crate that touches the file system, and only to read.

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::limits::{SOURCES_BYTES_MAX, SOURCES_MAX};
use crate::source::{Origin, Source, Sources, Span};
use crate::{Checked, parse};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// A file could not be read at all; the sentence says which, why, and what to do. Exit code 2.
    CannotOpen {
        /// Complete, without a final line break.
        sentence: String,
    },
    /// The files were read and something in them is wrong. Exit code 1.
    Problems(Diagnostics),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotOpen { sentence } => writeln!(f, "{sentence}"),
            Self::Problems(diagnostics) => diagnostics.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads files, and of directories every `*.yaml` and `*.yml` in the order of their names (not of directories below),
/// and checks them as one configuration. `${NAME}` takes from this process's environment.
pub fn load(paths: &[PathBuf]) -> Result<Checked, LoadError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(expand(path)?);
    }
    if files.is_empty() {
        return Err(cannot(
            "no configuration file is named; write `ringway run --config FILE`".to_owned(),
        ));
    }
    if files.len() > SOURCES_MAX {
        return Err(cannot(format!(
            "there are {} configuration files; at most {SOURCES_MAX} are read",
            files.len()
        )));
    }
    let mut sources = Vec::new();
    let mut bytes_left = SOURCES_BYTES_MAX;
    for file in files {
        let name = file.display().to_string();
        let bytes = read(&file, bytes_left)?;
        bytes_left -= bytes.len();
        let text = String::from_utf8(bytes).map_err(|error| LoadError::Problems(not_text(&name, &error)))?;
        sources.push(Source { name, text });
    }
    parse(&sources, &|name| std::env::var(name).ok()).map_err(LoadError::Problems)
}

/// A file, or the files of a directory.
fn expand(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| cannot_read(path, &error))? {
        let file = entry.map_err(|error| cannot_read(path, &error))?.path();
        let is_yaml = file
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        // Editors leave .name.yaml files behind while they write.
        let is_hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(cannot(format!("{} has no *.yaml or *.yml file", path.display())));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| cannot_read(path, &error))?;
    if bytes.len() > bytes_max {
        let sentence = format!(
            "{}: the configuration is larger than {} KiB in all, which is more than it can use; is this the right file?",
            path.display(),
            SOURCES_BYTES_MAX >> 10
        );
        return Err(cannot(sentence));
    }
    Ok(bytes)
}

fn cannot(sentence: String) -> LoadError {
    LoadError::CannotOpen { sentence }
}

fn cannot_read(path: &Path, error: &io::Error) -> LoadError {
    let shown = path.display();
    cannot(match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist; give the path of a configuration file"),
        io::ErrorKind::PermissionDenied => {
            format!("{shown} cannot be read: permission denied; let the user that runs ringway read it")
        }
        _ => format!("{shown} cannot be read: {error}"),
    })
}

/// A file that is not UTF-8 has a place too: the first byte that is wrong.
fn not_text(name: &str, error: &std::string::FromUtf8Error) -> Diagnostics {
    let valid = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let mut sources = Sources::new();
    let source = sources.add(name, &text, Origin::File);
    // A byte-order mark is left out of the text that is shown.
    let start = valid.saturating_sub(text.len() - sources.text(source).len());
    let place = sources.place(Span {
        source,
        start,
        end: start + '\u{fffd}'.len_utf8(),
    });
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        place,
        message: "the file is not UTF-8 text".to_owned(),
        help: "save it as UTF-8".to_owned(),
        notes: Vec::new(),
    };
    Diagnostics::new(vec![diagnostic], 0)
}
