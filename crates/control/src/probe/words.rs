//! What is said about a probe. The only place where bytes of a backend become words: nothing unprintable passes, nothing
//! long does.

use super::{ProbeError, WORDS_MAX};
use nix::errno::Errno;
use std::io;
use std::time::Duration;

/// Bytes of a backend or of the configuration that are shown within a sentence.
const QUOTED_MAX: usize = 40;
const CUT: &str = "...";

/// On one line, without control characters, cut to [`WORDS_MAX`] bytes.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        // What is neither ASCII nor a letter or digit may reorder or hide its neighbours on a terminal.
        if (' '..='~').contains(&character) || character.is_alphanumeric() {
            line.push(character);
        } else {
            line.extend(character.escape_default());
        }
        if line.len() > WORDS_MAX {
            let mut end = WORDS_MAX - CUT.len();
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push_str(CUT);
            break;
        }
    }
    line
}

/// In quotation marks, with escapes for what is not printable ASCII, the first bytes only.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let shown = bytes.get(..QUOTED_MAX).unwrap_or(bytes);
    let cut = if shown.len() < bytes.len() { CUT } else { "" };
    format!("\"{}\"{cut}", shown.escape_ascii())
}

/// As configurations write it: "2s", "250ms".
pub(super) fn duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Whose fault an error of a socket is, in words; `when` completes them.
pub(super) fn fault(error: &io::Error, when: &str) -> ProbeError {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => ProbeError::Failed(format!("ended by the backend{when}")),
            _ => ProbeError::Failed(format!("{error}{when}")),
        };
    };
    match errno {
        // EAGAIN of connect(2): no port or route is left. A UNIX socket whose queue is full never comes here.
        // EADDRINUSE of bind(2) to port 0: the same for UDP.
        Errno::EMFILE
        | Errno::ENFILE
        | Errno::EADDRNOTAVAIL
        | Errno::EADDRINUSE
        | Errno::ENOBUFS
        | Errno::ENOMEM
        | Errno::EAGAIN => ProbeError::Local(format!("{}{when}", lower(errno))),
        Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED => {
            ProbeError::Failed(format!("reset by the backend{when}"))
        }
        Errno::ENOENT => ProbeError::Failed(format!("there is no such socket{when}")),
        _ => ProbeError::Failed(format!("{}{when}", lower(errno))),
    }
}

/// The system's words for it, to be used within a sentence: "connection refused".
fn lower(errno: Errno) -> String {
    let mut description = errno.desc().to_owned();
    if let Some(first) = description.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    description
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errno: i32) -> ProbeError {
        fault(&io::Error::from_raw_os_error(errno), " now")
    }

    #[test]
    fn what_this_machine_lacks_is_local() {
        // EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM, EAGAIN
        for errno in [24, 23, 99, 105, 12, 11] {
            assert!(matches!(words(errno), ProbeError::Local(_)), "{errno}");
        }
        assert_eq!(words(24), ProbeError::Local("too many open files now".to_owned()));
    }

    #[test]
    fn everything_else_is_the_backends() {
        for (errno, expected) in [
            (111, "connection refused now"),
            (104, "reset by the backend now"),
            (32, "reset by the backend now"),
            (2, "there is no such socket now"),
            (113, "no route to host now"),
            (101, "network is unreachable now"),
            (110, "connection timed out now"),
        ] {
            assert_eq!(words(errno), ProbeError::Failed(expected.to_owned()), "{errno}");
        }
        assert_eq!(
            fault(&io::ErrorKind::UnexpectedEof.into(), ""),
            ProbeError::Failed("ended by the backend".to_owned())
        );
    }

    #[test]
    fn nothing_unprintable_and_nothing_long_passes() {
        assert_eq!(
            printable("a\tb\n\x1b[31m\u{202e}\u{9b}é"),
            "a\\tb\\n\\u{1b}[31m\\u{202e}\\u{9b}é"
        );
        assert_eq!(printable(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(printable(&"x".repeat(201)), format!("{}...", "x".repeat(197)));
        // 98 letters of two bytes are 196 bytes; a 99th would be cut in the middle.
        assert_eq!(printable(&"é".repeat(101)), format!("{}...", "é".repeat(98)));
        assert_eq!(
            printable(&format!("{}\n", "x".repeat(199))),
            format!("{}...", "x".repeat(197))
        );
    }

    #[test]
    fn quotations_are_escaped_and_cut() {
        assert_eq!(quoted(b"+PONG\r\n"), "\"+PONG\\r\\n\"");
        assert_eq!(quoted(b"\"\x00\xff"), "\"\\\"\\x00\\xff\"");
        assert_eq!(quoted(&[b'a'; 40]), format!("\"{}\"", "a".repeat(40)));
        assert_eq!(quoted(&[b'a'; 41]), format!("\"{}\"...", "a".repeat(40)));
    }

    #[test]
    fn durations_are_written_as_in_configurations() {
        assert_eq!(duration(Duration::from_secs(2)), "2s");
        assert_eq!(duration(Duration::from_millis(250)), "250ms");
        assert_eq!(duration(Duration::from_millis(1500)), "1500ms");
    }
}
