//! Whole numbers, powers of two, percents and factors, `true` and `false`.

use crate::diagnostic::quote;
use crate::limits::Range;
use crate::problem::Fault;

/// Decimal digits only: `0x10`, `1_000`, `1e3`, `+1` and `1.0` are not taken for anything.
pub(crate) fn parse(text: &str, limits: Range) -> Result<u64, Fault> {
    let Range { min, max } = limits;
    let help = format!("write {min} to {max}");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new(format!("{} is not a whole number", quote(text)), help));
    }
    match text.parse::<u64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Fault::new(format!("{text} is out of range", text = crop(text)), help)),
    }
}

/// A number that must be a power of two.
pub(crate) fn parse_power_of_two(text: &str, limits: Range) -> Result<u64, Fault> {
    let number = parse(text, limits)?;
    require_power_of_two(number, text, |power| power.to_string())
}

/// `number` if it is a power of two; otherwise its neighbours, worded by `show`.
pub(crate) fn require_power_of_two(number: u64, text: &str, show: impl Fn(u64) -> String) -> Result<u64, Fault> {
    if number.is_power_of_two() {
        return Ok(number);
    }
    let above = number.checked_next_power_of_two().unwrap_or(1 << 63);
    let help = format!("write {} or {}", show(above / 2), show(above));
    Err(Fault::new(
        format!("{} is not a power of two", quote(text).trim_matches('"')),
        help,
    ))
}

/// A whole number of percent, with or without the sign.
pub(crate) fn parse_percent(text: &str, limits: Range) -> Result<u64, Fault> {
    let help = format!("write {}% to {}%", limits.min, limits.max);
    parse(text.strip_suffix('%').unwrap_or(text), limits).map_err(|fault| Fault { help, ..fault })
}

/// `off`, or a factor such as `1.25`, in percent; exact, so no more than two decimals.
pub(crate) fn parse_factor_or_off(text: &str, limits: Range) -> Result<Option<u64>, Fault> {
    if text == "off" {
        return Ok(None);
    }
    let help = || {
        format!(
            "write {} to {}, or off",
            show_factor(limits.min),
            show_factor(limits.max)
        )
    };
    if text.ends_with('%') {
        return Err(Fault::new(
            format!("{} is in percent", quote(text)),
            "write a factor such as 1.25",
        ));
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) {
        return Err(Fault::new(format!("{} is not a number", quote(text)), help()));
    }
    if decimals.len() > 2 {
        return Err(Fault::new(
            format!("{} has more than two decimals", quote(text)),
            "write a factor such as 1.25",
        ));
    }
    let percent = format!("{whole}{decimals:0<2}").parse::<u64>();
    match percent {
        Ok(percent) if (limits.min..=limits.max).contains(&percent) => Ok(Some(percent)),
        _ => Err(Fault::new(format!("{} is out of range", crop(text)), help())),
    }
}

/// 125 is `1.25`, 10,000 is `100`.
fn show_factor(percent: u64) -> String {
    match (percent / 100, percent % 100) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{rest:02}"),
    }
}

/// Only `true` and `false`; YAML 1.1's `yes`, `on`, `y` are refused because `no` is also a country.
pub(crate) fn parse_bool(text: &str) -> Result<bool, Fault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let help = match other.to_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => "write true",
                "no" | "off" | "n" | "0" | "false" => "write false",
                _ => "write true or false",
            };
            Err(Fault::new(format!("{} is neither true nor false", quote(other)), help))
        }
    }
}

/// Digits without quotes, shortened like [`quote`] does.
fn crop(digits: &str) -> String {
    quote(digits).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Range = Range { min: 1, max: 16 };

    #[test]
    fn accepts_decimal_digits_inside_the_range() {
        assert_eq!(parse("1", SMALL), Ok(1));
        assert_eq!(
            parse("016", SMALL),
            Ok(16),
            "leading zeros are decimal, as people read them"
        );
        assert_eq!(
            parse("18446744073709551615", Range { min: 0, max: u64::MAX }),
            Ok(u64::MAX)
        );
    }

    #[test]
    fn refuses_everything_else_with_the_range() {
        for text in ["", "-1", "+1", "1.0", "1e1", "0x1", "1_0", "one", "١"] {
            let fault = parse(text, SMALL).expect_err(text);
            assert_eq!(fault.help, "write 1 to 16");
            assert!(fault.message.ends_with("is not a whole number"), "{}", fault.message);
        }
        for text in ["0", "17", "99999999999999999999999"] {
            assert_eq!(
                parse(text, SMALL).expect_err(text).message,
                format!("{text} is out of range")
            );
        }
    }

    #[test]
    fn powers_of_two_name_their_neighbours() {
        let limits = Range { min: 16, max: 32_768 };
        assert_eq!(parse_power_of_two("1024", limits), Ok(1_024));
        let fault = parse_power_of_two("1000", limits).expect_err("not a power");
        assert_eq!(
            (fault.message.as_str(), fault.help.as_str()),
            ("1000 is not a power of two", "write 512 or 1024")
        );
    }

    #[test]
    fn booleans_are_two_words() {
        assert_eq!(parse_bool("true"), Ok(true));
        assert_eq!(parse_bool("false"), Ok(false));
        assert_eq!(parse_bool("yes").expect_err("yes").help, "write true");
        assert_eq!(parse_bool("Off").expect_err("off").help, "write false");
        assert_eq!(parse_bool("maybe").expect_err("maybe").help, "write true or false");
    }

    #[test]
    fn percents_with_and_without_the_sign() {
        let all = Range { min: 0, max: 100 };
        assert_eq!(parse_percent("50%", all), Ok(50));
        assert_eq!(parse_percent("0", all), Ok(0));
        assert_eq!(parse_percent("100%", all), Ok(100));
        for text in ["101%", "101", "50 %", "-1%", "0.5", "%", "50%%"] {
            let fault = parse_percent(text, all).expect_err(text);
            assert_eq!(fault.help, "write 0% to 100%", "{text}");
        }
    }

    #[test]
    fn factors_are_exact() {
        let limits = Range { min: 101, max: 10_000 };
        for (text, percent) in [
            ("1.25", Some(125)),
            ("1.5", Some(150)),
            ("2", Some(200)),
            ("1.01", Some(101)),
            ("100", Some(10_000)),
            ("100.00", Some(10_000)),
            ("off", None),
        ] {
            assert_eq!(parse_factor_or_off(text, limits), Ok(percent), "{text}");
        }
        for (text, message, help) in [
            ("1", "1 is out of range", "write 1.01 to 100, or off"),
            ("1.00", "1.00 is out of range", "write 1.01 to 100, or off"),
            ("100.01", "100.01 is out of range", "write 1.01 to 100, or off"),
            (
                "99999999999999999999",
                "99999999999999999999 is out of range",
                "write 1.01 to 100, or off",
            ),
            (
                "1.255",
                "\"1.255\" has more than two decimals",
                "write a factor such as 1.25",
            ),
            ("125%", "\"125%\" is in percent", "write a factor such as 1.25"),
            ("1,25", "\"1,25\" is not a number", "write 1.01 to 100, or off"),
            ("1.", "\"1.\" is not a number", "write 1.01 to 100, or off"),
            (".5", "\".5\" is not a number", "write 1.01 to 100, or off"),
            ("", "\"\" is not a number", "write 1.01 to 100, or off"),
        ] {
            let fault = parse_factor_or_off(text, limits).expect_err(text);
            assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
        }
    }
}
