//! `5s`, `250ms`, `1h`, `1m30s`.

use crate::diagnostic::quote;
use crate::limits::{Limits, Span};
use crate::problem::Fault;
use crate::suggest;
use std::time::Duration;

/// From the largest to the smallest, which is also the order inside one text; in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// What people write for the units.
const LONG_UNITS: [(&str, &[&str]); 5] = [
    ("d", &["day", "days"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("m", &["min", "mins", "minute", "minutes"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("ms", &["msec", "msecs", "millis", "millisecond", "milliseconds"]),
];

/// Reads a duration inside `limits`.
pub(crate) fn parse(text: &str, limits: Span) -> Result<Duration, Fault> {
    let Span { min, max, .. } = limits;
    within(text, Limits { min, max })
}

/// `off`, or a duration inside `limits`.
pub(crate) fn parse_or_off(text: &str, limits: Limits) -> Result<Option<Duration>, Fault> {
    if text == "off" {
        return Ok(None);
    }
    let zero = millis(text).is_ok_and(|millis| millis == 0);
    match within(text, limits) {
        Err(fault) if zero || matches!(text, "0" | "false" | "no" | "none") => Err(Fault {
            help: "write off".to_owned(),
            ..fault
        }),
        other => other.map(Some),
    }
}

fn within(text: &str, limits: Limits) -> Result<Duration, Fault> {
    let duration = Duration::from_millis(millis(text)?);
    if duration < limits.min || duration > limits.max {
        let side = if duration < limits.min { "short" } else { "long" };
        let range = format!("write {} to {}", show(limits.min), show(limits.max));
        return Err(Fault::new(format!("{} is too {side}", quote(text)), range));
    }
    Ok(duration)
}

/// Like [`parse`], for what the kernel takes in seconds only.
pub(crate) fn parse_seconds(text: &str, limits: Span) -> Result<Duration, Fault> {
    let duration = parse(text, limits)?;
    if duration.subsec_nanos() != 0 {
        let rounded = Duration::from_secs(duration.as_secs() + 1);
        let help = format!("the kernel counts it in seconds: {}", show(rounded));
        return Err(Fault::new(format!("{} is not whole seconds", quote(text)), help));
    }
    Ok(duration)
}

/// The shortest text for a duration: `90s` is `1m30s`.
pub(crate) fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in UNITS {
        let count = rest / millis;
        rest %= millis;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn millis(text: &str) -> Result<u64, Fault> {
    let quoted = quote(text);
    if text.is_empty() {
        return Err(Fault::new("is empty", "write a duration such as 5s, 250ms or 1m30s"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new(
            format!("{quoted} has no unit"),
            format!("write {text}s or {text}ms"),
        ));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    let mut largest_left = 0;
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..]
            .chars()
            .take_while(|letter| letter.is_alphabetic())
            .map(char::len_utf8)
            .sum::<usize>();
        let part = at..at + digits + letters;
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        if digits == 0 || letters == 0 {
            return Err(shape_fault(text, &quoted));
        }
        let Some(place) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(unit_fault(number, unit, &quoted).at(part));
        };
        if place < largest_left {
            let help = "write each unit once, the largest first, as in 1h30m";
            return Err(Fault::new(format!("{quoted} has its units in the wrong order"), help).at(part));
        }
        largest_left = place + 1;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(UNITS[place].1))
            .and_then(|millis| total.checked_add(millis))
            .ok_or_else(|| Fault::new(format!("{quoted} is longer than every limit"), "write 365d or less").at(part))?;
        rest = &rest[digits + letters..];
    }
    Ok(total)
}

fn shape_fault(text: &str, quoted: &str) -> Fault {
    let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    if compact.len() != text.len() && millis(&compact).is_ok() {
        return Fault::new(format!("{quoted} has a space in it"), format!("write {compact}"));
    }
    if text.starts_with('-') {
        return Fault::new(format!("{quoted} is negative"), "write a duration such as 5s");
    }
    if text.contains(['.', ',']) {
        return Fault::new(
            format!("{quoted} has a fraction"),
            "use a smaller unit: 1500ms, or 1m30s",
        );
    }
    Fault::new(
        format!("{quoted} is not a duration"),
        "write a number and a unit, such as 5s, 250ms or 1m30s",
    )
}

fn unit_fault(number: &str, unit: &str, quoted: &str) -> Fault {
    let lower = unit.to_lowercase();
    let long = LONG_UNITS
        .iter()
        .find(|(short, long)| *short == lower || long.contains(&lower.as_str()));
    let help = match long {
        Some((short, _)) => format!("write {number}{short}"),
        None => suggest::help(unit, "units", ["ms", "s", "m", "h", "d"].into_iter()),
    };
    Fault::new(format!("{quoted} has an unknown unit"), help)
}

#[cfg(test)]
#[path = "duration_test.rs"]
mod tests;
