use super::*;
use proptest::prelude::*;

const WIDE: Span = Span {
    min: Duration::ZERO,
    max: Duration::MAX,
    default: Duration::ZERO,
};
const NARROW: Span = Span {
    min: Duration::from_millis(100),
    max: Duration::from_secs(3_600),
    default: Duration::from_secs(1),
};

#[test]
fn units_in_milliseconds() {
    for (text, ms) in [
        ("0s", 0),
        ("250ms", 250),
        ("5s", 5_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("1m30s", 90_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("007s", 7_000),
    ] {
        assert_eq!(parse(text, WIDE), Ok(Duration::from_millis(ms)), "{text}");
    }
}

#[test]
fn refusals_say_what_would_be_right() {
    for (text, message, help) in [
        ("", "is empty", "write a duration such as 5s, 250ms or 1m30s"),
        ("5", "\"5\" has no unit", "write 5s or 5ms"),
        ("5S", "\"5S\" has an unknown unit", "write 5s"),
        ("5secs", "\"5secs\" has an unknown unit", "write 5s"),
        ("5us", "\"5us\" has an unknown unit", "did you mean \"ms\"?"),
        ("5 s", "\"5 s\" has a space in it", "write 5s"),
        ("-5s", "\"-5s\" is negative", "write a duration such as 5s"),
        (
            "1.5s",
            "\"1.5s\" has a fraction",
            "use a smaller unit: 1500ms, or 1m30s",
        ),
        (
            "s",
            "\"s\" is not a duration",
            "write a number and a unit, such as 5s, 250ms or 1m30s",
        ),
        (
            "1m30",
            "\"1m30\" is not a duration",
            "write a number and a unit, such as 5s, 250ms or 1m30s",
        ),
        (
            "5s5s",
            "\"5s5s\" has its units in the wrong order",
            "write each unit once, the largest first, as in 1h30m",
        ),
        (
            "99999999999999999999s",
            "\"99999999999999999999s\" is longer than every limit",
            "write 365d or less",
        ),
        (
            "213503982335d",
            "\"213503982335d\" is longer than every limit",
            "write 365d or less",
        ),
        ("50ms", "\"50ms\" is too short", "write 100ms to 1h"),
        ("2h", "\"2h\" is too long", "write 100ms to 1h"),
    ] {
        let fault = parse(text, NARROW).expect_err(text);
        assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
    }
}

#[test]
fn whole_seconds_where_the_kernel_wants_them() {
    assert_eq!(parse_seconds("1m", NARROW), Ok(Duration::from_secs(60)));
    assert_eq!(parse_seconds("2000ms", NARROW), Ok(Duration::from_secs(2)));
    assert_eq!(
        parse_seconds("1500ms", NARROW).expect_err("fraction").help,
        "the kernel counts it in seconds: 2s"
    );
}

#[test]
fn off_is_a_duration_of_some_keys() {
    let limits = Limits {
        min: Duration::from_secs(1),
        max: Duration::from_secs(3_600),
    };
    assert_eq!(parse_or_off("off", limits), Ok(None));
    assert_eq!(parse_or_off("30s", limits), Ok(Some(Duration::from_secs(30))));
    for (text, help) in [
        ("0s", "write off"),
        ("0", "write off"),
        ("false", "write off"),
        ("none", "write off"),
        ("10ms", "write 1s to 1h"),
        ("2h", "write 1s to 1h"),
        ("30", "write 30s or 30ms"),
    ] {
        assert_eq!(parse_or_off(text, limits).expect_err(text).help, help, "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(ms in 0_u64..=1 << 50) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(parse(&show(duration), WIDE), Ok(duration));
    }

    #[test]
    fn parts_lie_inside_the_text(text in "\\PC{0,12}|[0-9dhms. ]{0,12}") {
        if let Err(Fault { part: Some(part), .. }) = parse(&text, NARROW) {
            prop_assert!(text.get(part).is_some());
        }
    }
}
