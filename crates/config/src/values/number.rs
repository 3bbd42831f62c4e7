//! Whole numbers, powers of two, `true` and `false`.

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
}
