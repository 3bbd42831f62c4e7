use super::*;
use std::io::Write;
use std::sync::Mutex;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written while `events` runs.
fn logged(format: Format, levels: &str, colours: bool, events: impl FnOnce()) -> String {
    let sink = Sink::default();
    let queue = queue::start(Box::new(sink.clone()), LINES_MAX).expect("starts");
    let levels = parse_levels(levels).expect("valid levels");
    tracing::subscriber::with_default(subscriber(format, levels, colours, queue.clone()), events);
    assert!(queue.flush(Duration::from_secs(10)));
    String::from_utf8(sink.0.lock().expect("not poisoned").clone()).expect("UTF-8")
}

/// All 256 byte values as a client could send them, plus what reorders or breaks lines in Unicode.
fn nasty() -> String {
    let bytes: Vec<u8> = (0..=255).collect();
    let latin: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    format!("{latin}{}\u{2028}\u{202e}\r\n", String::from_utf8_lossy(&bytes))
}

#[test]
fn json_lines_parse_and_give_values_back_whatever_they_hold() {
    let nasty = nasty();
    let text = logged(Format::Json, "info", false, || {
        tracing::info!(listener = "web", bytes = 7, peer = %nasty, "{nasty}");
        tracing::warn!(listener = nasty.as_str(), "second");
    });
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines.len(), 3, "two lines, each ended: {text}");
    let first: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(first["message"], *nasty);
    assert_eq!(first["peer"], *nasty);
    assert_eq!(first["listener"], "web");
    assert_eq!(first["bytes"], 7);
    assert_eq!(first["level"], "INFO");
    assert!(first["timestamp"].is_string());
    let second: serde_json::Value = serde_json::from_str(lines[1]).expect("JSON");
    assert_eq!(
        (&second["listener"], &second["level"]),
        (&(*nasty).into(), &"WARN".into())
    );
}

#[test]
fn human_lines_hold_no_control_characters() {
    let nasty = nasty();
    let text = logged(Format::Human, "info", false, || {
        tracing::info!(listener = nasty.as_str(), peer = %nasty, error = ?nasty, "{nasty}");
    });
    let line = text.strip_suffix('\n').expect("ends its line");
    let bad: Vec<char> = line
        .chars()
        .filter(|c| c.is_control() || "\u{2028}\u{202e}".contains(*c))
        .collect();
    assert_eq!(bad, Vec::<char>::new());
}

#[test]
fn human_lines_read_well() {
    let text = logged(Format::Human, "info", false, || {
        tracing::info!(listener = "web", address = %"127.0.0.1:80", note = "two words", empty = "", left = 3, "serving");
    });
    let (time, rest) = text.split_once(' ').expect("starts with the time");
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(
        rest,
        " INFO serving listener=web address=127.0.0.1:80 note=\"two words\" empty=\"\" left=3\n"
    );
}

#[test]
fn colours_only_when_asked_for() {
    let event = || tracing::warn!("careful");
    assert!(!logged(Format::Human, "info", false, event).contains('\x1b'));
    assert!(logged(Format::Human, "info", true, event).contains("\x1b[33m WARN\x1b[0m careful\n"));
}

#[test]
fn levels_filter_by_target() {
    let events = || {
        tracing::debug!(target: "ringway_proxy::tcp", "proxy");
        tracing::debug!(target: "ringway_control", "control");
        tracing::info!(target: "hyper", "hyper");
    };
    let text = logged(Format::Human, "warn,ringway_proxy=debug", false, events);
    assert!(
        text.contains("proxy") && !text.contains("control") && !text.contains("hyper"),
        "{text}"
    );
    assert_eq!(logged(Format::Human, "off", false, events), "");
}

#[test]
fn a_mistyped_level_is_refused_with_a_sentence() {
    for (text, seen) in [
        ("inof", "\"inof\" is not"),
        ("", "no level"),
        ("info,x=", "\"\" is not"),
        ("a=b=c", "\"c\" is not"),
    ] {
        let sentence = parse_levels(text).expect_err(text);
        assert!(
            sentence.starts_with(seen) && sentence.contains("use error, warn, info"),
            "{sentence}"
        );
    }
    for text in ["info", "WARN", "off", "warn,ringway_proxy=debug", " debug "] {
        assert!(parse_levels(text.trim()).is_ok(), "{text}");
    }
}
