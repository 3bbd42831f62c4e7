//! `64KiB`, `1MiB`.

use super::number;
use crate::diagnostic::quote;
use crate::limits::Range;
use crate::problem::Fault;

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a size in bytes that must be a power of two inside `limits`.
pub(crate) fn parse_power_of_two(text: &str, limits: Range) -> Result<u64, Fault> {
    let bytes = parse(text, limits)?;
    number::require_power_of_two(bytes, text, show)
}

/// Reads a size in bytes inside `limits`.
pub(crate) fn parse(text: &str, limits: Range) -> Result<u64, Fault> {
    let bytes = bytes(text)?;
    if bytes < limits.min || bytes > limits.max {
        let side = if bytes < limits.min { "small" } else { "large" };
        let help = format!("write {} to {}", show(limits.min), show(limits.max));
        return Err(Fault::new(format!("{} is too {side}", quote(text)), help));
    }
    Ok(bytes)
}

/// The largest unit that divides: 65,536 is `64KiB`.
pub(crate) fn show(bytes: u64) -> String {
    let fitting = UNITS
        .iter()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    fitting.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

fn bytes(text: &str) -> Result<u64, Fault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let quoted = quote(text);
    if digits == 0 {
        return Err(Fault::new(
            format!("{quoted} is not a size"),
            "write a number and a unit, such as 64KiB",
        ));
    }
    let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        if unit.is_empty() {
            let exact = number.parse().map_or_else(|_| "64KiB".to_owned(), show);
            return Err(Fault::new(format!("{quoted} has no unit"), format!("write {exact}")));
        }
        let meant = unit
            .trim_start()
            .chars()
            .next()
            .map(|letter| letter.to_ascii_uppercase());
        let help = match meant {
            Some(letter @ ('K' | 'M' | 'G')) => format!("units count in 1024: write {number}{letter}iB"),
            _ => "units are B, KiB, MiB, GiB".to_owned(),
        };
        return Err(Fault::new(format!("{quoted} has an unknown unit"), help).at(digits..text.len()));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(*size))
        .ok_or_else(|| Fault::new(format!("{quoted} is larger than every limit"), "write 1GiB or less"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Range = Range {
        min: 1 << 10,
        max: 1 << 20,
    };

    #[test]
    fn accepts_powers_of_two_in_binary_units() {
        assert_eq!(parse_power_of_two("16KiB", LIMITS), Ok(16_384));
        assert_eq!(parse_power_of_two("4096B", LIMITS), Ok(4_096));
        assert_eq!(parse_power_of_two("1MiB", LIMITS), Ok(1_048_576));
    }

    #[test]
    fn says_what_would_be_right() {
        let help = |text| parse_power_of_two(text, LIMITS).expect_err(text).help;
        assert_eq!(help("16384"), "write 16KiB");
        assert_eq!(help("16KB"), "units count in 1024: write 16KiB");
        assert_eq!(help("16k"), "units count in 1024: write 16KiB");
        assert_eq!(help("16 KiB"), "units count in 1024: write 16KiB");
        assert_eq!(help("16x"), "units are B, KiB, MiB, GiB");
        assert_eq!(help("24KiB"), "write 16KiB or 32KiB");
        assert_eq!(help("2MiB"), "write 1KiB to 1MiB");
        assert_eq!(help("99999999999999999999GiB"), "write 1GiB or less");
        assert_eq!(help("big"), "write a number and a unit, such as 64KiB");
        assert_eq!(help(""), "write a number and a unit, such as 64KiB");
    }
}
