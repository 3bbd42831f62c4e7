//! Paths of files. Whether a file exists is for the machine to say, not for the check.

use crate::diagnostic::quote;
use crate::problem::Fault;
use ringway_core::model::LogTarget;
use std::path::PathBuf;

/// A file to read.
pub(crate) fn parse_file(text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty", "write the path of a file"));
    }
    if text.ends_with('/') {
        return Err(Fault::new(
            format!("{} is a directory", quote(text)),
            "write the path of a file",
        ));
    }
    if text.contains('\0') {
        return Err(Fault::new(
            format!("{} has a zero byte in it", quote(text)),
            "write the path of a file",
        ));
    }
    Ok(PathBuf::from(text))
}

/// `stderr`, or a file to write to. A path has a `/`, so that a misspelt word does not become a file.
pub(crate) fn parse_log_target(text: &str) -> Result<LogTarget, Fault> {
    if text == "stderr" {
        return Ok(LogTarget::Stderr);
    }
    if text.contains('/') {
        return parse_file(text).map(LogTarget::File);
    }
    let help = match text {
        "stdout" => "write stderr, or /dev/stdout".to_owned(),
        _ if text.contains('.') => format!("a path has a / in it: write {}", quote(&format!("./{text}"))),
        _ => "write stderr, or a path such as /var/log/ringway/sessions.log".to_owned(),
    };
    Err(Fault::new(format!("{} is not known", quote(text)), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_slash() {
        assert_eq!(parse_log_target("stderr"), Ok(LogTarget::Stderr));
        assert_eq!(
            parse_log_target("/var/log/s.log"),
            Ok(LogTarget::File("/var/log/s.log".into()))
        );
        assert_eq!(parse_log_target("./s.log"), Ok(LogTarget::File("./s.log".into())));
        for (text, help) in [
            ("stdout", "write stderr, or /dev/stdout"),
            ("s.log", "a path has a / in it: write \"./s.log\""),
            ("yes", "write stderr, or a path such as /var/log/ringway/sessions.log"),
            ("", "write stderr, or a path such as /var/log/ringway/sessions.log"),
            ("/var/log/", "write the path of a file"),
            ("/a\0b", "write the path of a file"),
        ] {
            assert_eq!(parse_log_target(text).expect_err(text).help, help, "{text:?}");
        }
    }

    #[test]
    fn a_file_needs_no_slash() {
        assert_eq!(parse_file("ca.pem"), Ok("ca.pem".into()));
        assert!(parse_file("").is_err() && parse_file("/etc/ssl/").is_err());
    }
}
