use super::*;
use crate::session_log::tests::{backend, names, record};
use ringway_core::model::PoolIndex;
use ringway_proxy::observer::Seldom;
use std::path::PathBuf;

/// 2026-03-01T12:00:00.123Z
const MARCH: u64 = 1_772_366_400_123;

fn line(format: LogFormat, record: &SessionRecord) -> String {
    let mut line = Vec::new();
    Lines::new(format, &names()).push(&mut line, record, MARCH);
    String::from_utf8(line).expect("UTF-8")
}

fn json(record: &SessionRecord) -> String {
    line(LogFormat::Json, record)
}

fn text(record: &SessionRecord) -> String {
    line(LogFormat::Text, record)
}

#[test]
fn an_ordinary_session() {
    let record = record();
    assert_eq!(
        json(&record),
        concat!(
            r#"{"time":"2026-03-01T12:00:00.123Z","event":"session","listener":"web","client":"10.1.2.3:4567","#,
            r#""pool":"app","backend":"10.0.0.11:5432","tries":1,"connect_ms":0.412,"bytes_in":517,"#,
            r#""bytes_out":18446744073709551615,"duration_ms":3723004.050,"reason":"finished","by":"nobody","#,
            r#""text":"both sides ended in order"}"#,
            "\n"
        )
    );
    assert_eq!(
        text(&record),
        concat!(
            "2026-03-01T12:00:00.123Z event=session listener=web client=10.1.2.3:4567 pool=app ",
            "backend=10.0.0.11:5432 tries=1 connect_ms=0.412 bytes_in=517 bytes_out=18446744073709551615 ",
            "duration_ms=3723004.050 reason=finished by=nobody text=\"both sides ended in order\"\n"
        )
    );
}

/// Of connections nothing is said of datagrams.
#[test]
fn a_session_of_datagrams() {
    let record = SessionRecord {
        datagrams: Some((12, 3)),
        ..record()
    };
    let out = r#""bytes_out":18446744073709551615,"datagrams_in":12,"datagrams_out":3,"duration_ms""#;
    assert!(json(&record).contains(out), "{}", json(&record));
    let out = " bytes_out=18446744073709551615 datagrams_in=12 datagrams_out=3 duration_ms=";
    assert!(text(&record).contains(out), "{}", text(&record));
}

#[test]
fn a_session_that_reached_nobody() {
    let record = SessionRecord {
        client: None,
        seldom: None,
        listener: 1,
        pool: Some(PoolIndex(1)),
        backend: None,
        tries: 0,
        connect_time: None,
        bytes_from_client: 0,
        bytes_from_backend: 0,
        datagrams: None,
        duration: Duration::from_nanos(999),
        reason: EndReason::NoBackend,
    };
    assert_eq!(
        json(&record),
        concat!(
            r#"{"time":"2026-03-01T12:00:00.123Z","event":"session","listener":"two words","client":null,"#,
            r#""pool":"a\"b","backend":null,"tries":0,"connect_ms":null,"bytes_in":0,"bytes_out":0,"#,
            r#""duration_ms":0.000,"reason":"no_backend","by":"backend","#,
            r#""text":"no backend of the pool could be chosen"}"#,
            "\n"
        )
    );
    assert_eq!(
        text(&record),
        concat!(
            "2026-03-01T12:00:00.123Z event=session listener=\"two words\" client=- pool=\"a\\\"b\" backend=- ",
            "tries=0 connect_ms=- bytes_in=0 bytes_out=0 duration_ms=0.000 reason=no_backend by=backend ",
            "text=\"no backend of the pool could be chosen\"\n"
        )
    );
}

#[test]
fn clients_of_every_kind() {
    let inet = |text: &str| Some(Address::Inet(text.parse().expect("an address")));
    for (client, seen) in [
        (inet("255.0.10.199:65535"), "255.0.10.199:65535"),
        (inet("[2001:db8::1]:80"), "[2001:db8::1]:80"),
        (inet("[::ffff:10.1.2.3]:80"), "[::ffff:10.1.2.3]:80"),
        (Some(Address::Unix(PathBuf::new())), "unix"),
        // What a client calls itself is its own choice, and does not appear.
        (Some(Address::Unix(PathBuf::from("\n\"own\u{1b}"))), "unix"),
    ] {
        let record = SessionRecord { client, ..record() };
        assert!(
            json(&record).contains(&format!("\"client\":\"{seen}\",\"pool\"")),
            "{seen}"
        );
        assert!(text(&record).contains(&format!(" client={seen} pool=")), "{seen}");
    }
}

/// What most sessions have none of stands behind everything else, in this order.
#[test]
fn what_a_balancer_in_front_and_the_hello_said() {
    let inet = |text: &str| Some(Address::Inet(text.parse().expect("an address")));
    let record = SessionRecord {
        seldom: Some(Box::new(Seldom {
            proxy: inet("10.0.9.1:51234"),
            server_name: Some("www.example.com".into()),
            id: Some("b3c9a1d0e5f60718000000000000a401".into()),
        })),
        ..record()
    };
    let out = concat!(
        r#","text":"both sides ended in order","proxy":"10.0.9.1:51234","sni":"www.example.com","#,
        r#""id":"b3c9a1d0e5f60718000000000000a401"}"#,
        "\n"
    );
    assert!(json(&record).ends_with(out), "{}", json(&record));
    let out = concat!(
        " text=\"both sides ended in order\" proxy=10.0.9.1:51234 sni=www.example.com ",
        "id=b3c9a1d0e5f60718000000000000a401\n"
    );
    assert!(text(&record).ends_with(out), "{}", text(&record));
}

#[test]
fn each_of_them_stands_alone() {
    let none = record();
    let named = |server_name: Option<Box<str>>, id: Option<Box<str>>, proxy| SessionRecord {
        seldom: Some(Box::new(Seldom { proxy, server_name, id })),
        ..record()
    };
    let v6 = Address::Inet("[2001:db8::1]:80".parse().expect("an address"));
    for (record, in_json, in_text) in [
        (
            named(Some("a-b_c.1".into()), None, None),
            r#","sni":"a-b_c.1"}"#,
            " sni=a-b_c.1\n",
        ),
        (named(None, Some("0a".into()), None), r#","id":"0a"}"#, " id=0a\n"),
        (
            named(None, None, Some(v6)),
            r#","proxy":"[2001:db8::1]:80"}"#,
            " proxy=[2001:db8::1]:80\n",
        ),
    ] {
        let with = |plain: String, end: &str, more: &str| plain.strip_suffix(end).expect("its end").to_owned() + more;
        assert_eq!(json(&record), with(json(&none), "}\n", in_json) + "\n");
        assert_eq!(text(&record), with(text(&none), "\n", in_text));
    }
}

/// A name has passed the reader of hellos, which lets in letters, digits, `-`, `_` and dots. Should that ever change, the
/// line stays one.
#[test]
fn whatever_a_name_holds_the_line_parses_and_stays_one() {
    let name: String = (0..=255_u8).map(char::from).collect();
    let record = SessionRecord {
        seldom: Some(Box::new(Seldom {
            server_name: Some(name.clone().into()),
            id: Some("\" by=operator\r\n".into()),
            ..Seldom::default()
        })),
        ..record()
    };
    let json = json(&record);
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(parsed["sni"], *name);
    assert_eq!(parsed["by"], "nobody");
    assert_eq!(json.find('\n'), Some(json.len() - 1));
    let text = text(&record);
    assert_eq!(text.find('\n'), Some(text.len() - 1));
    assert!(text.ends_with(" id=\"\\\" by=operator\\r\\n\"\n"), "{text}");
}

#[test]
fn whatever_a_label_holds_the_line_parses_and_stays_one() {
    let label: String = (0..=255_u8).map(char::from).collect();
    let record = SessionRecord {
        backend: Some(backend(&label)),
        ..record()
    };
    let json = json(&record);
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(parsed["backend"], *label);
    assert_eq!(json.find('\n'), Some(json.len() - 1));
    let text = text(&record);
    assert_eq!(text.find('\n'), Some(text.len() - 1));
}

#[test]
fn every_reason_has_its_words_in_valid_json() {
    for &reason in EndReason::ALL {
        let record = SessionRecord { reason, ..record() };
        let parsed: serde_json::Value = serde_json::from_str(&json(&record)).expect("JSON");
        assert_eq!(parsed["reason"], reason.label());
        assert_eq!(parsed["text"], words::text(reason));
        assert_eq!(parsed.as_object().expect("an object").len(), 14);
    }
}

#[test]
fn the_doer_in_a_word() {
    for (reason, by) in [
        (EndReason::Finished, "nobody"),
        (EndReason::ClientReset, "client"),
        (EndReason::BackendGone, "backend"),
        (EndReason::DrainDeadline, "operator"),
        (EndReason::LocalError, "local"),
    ] {
        let record = SessionRecord { reason, ..record() };
        assert!(json(&record).contains(&format!(",\"by\":\"{by}\",")), "{by}");
    }
}

#[test]
fn positions_beyond_the_names_are_nobody() {
    let record = SessionRecord {
        seldom: None,
        listener: 7,
        pool: Some(PoolIndex(usize::MAX)),
        ..record()
    };
    assert!(json(&record).contains(r#""listener":null,"client""#));
    assert!(text(&record).contains(" pool=- "));
}

#[test]
fn numbers_and_milliseconds() {
    for (number, seen) in [
        (0, "0"),
        (9, "9"),
        (10, "10"),
        (1_000_000, "1000000"),
        (u64::MAX, "18446744073709551615"),
    ] {
        let mut line = Vec::new();
        push_number(&mut line, number);
        assert_eq!(line, seen.as_bytes());
    }
    for (nanos, seen) in [
        (0, "0.000"),
        (1_000, "0.001"),
        (1_999, "0.001"),
        (999_999, "0.999"),
        (1_000_000, "1.000"),
        (60_000_120_000, "60000.120"),
    ] {
        let mut line = Vec::new();
        push_millis(&mut line, Duration::from_nanos(nanos));
        assert_eq!(line, seen.as_bytes());
    }
    let mut line = Vec::new();
    push_millis(&mut line, Duration::MAX);
    assert_eq!(line, b"18446744073709551615.999");
}
