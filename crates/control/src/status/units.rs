//! Numbers for people: counts, bytes, times and widths, short enough for a column.
//!
//! Absent on purpose: locales. Used by tables and views.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `0`, `1,204`, `32,730`, `123 k`, `1.2 M`: exact up to five digits.
pub fn count(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..100_000 => format!("{},{:03}", count / 1_000, count % 1_000),
        _ => scaled(count as f64, 1_000.0, &["", " k", " M", " G", " T"]),
    }
}

/// As [`count`], with a decimal below ten.
pub fn rate(per_second: f64) -> String {
    if per_second < 9.95 {
        let text = format!("{:.1}", per_second.max(0.0));
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    } else {
        count(per_second.round() as u64)
    }
}

/// `0 B`, `340 KiB`, `1.2 MiB`.
pub fn bytes(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1_024.0,
        &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"],
    )
}

/// One decimal below ten, none above; the first unit has none at all.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be shown as a whole step already is the next unit.
    while value.round() >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 9.95);
    format!("{value:.decimals$}{}", units[unit])
}

/// `0s`, `42s`, `3m12s`, `2h03m`, `5d04h`: the two largest parts.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// `80 µs`, `0.4 ms`, `12 ms`, `1.5 s`.
pub fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 0.095 {
        format!("{:.0} µs", milliseconds.max(0.0) * 1_000.0)
    } else if milliseconds < 9.95 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 999.5 {
        format!("{milliseconds:.0} ms")
    } else if milliseconds < 9_950.0 {
        format!("{:.1} s", milliseconds / 1_000.0)
    } else {
        format!("{:.0} s", milliseconds / 1_000.0)
    }
}

/// Two times with one unit where they share it: `0.4/2.1 ms`, `80 µs/12 ms`.
pub fn milliseconds_pair(first: f64, second: f64) -> String {
    let (first, second) = (milliseconds(first), milliseconds(second));
    match (first.split_once(' '), second.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}/{second}"),
        _ => format!("{first}/{second}"),
    }
}

/// `1 backend`, `2 backends`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A bar of at most `cells` columns for a part between 0 and 1, to an eighth of a column.
pub fn bar(part: f64, cells: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part.clamp(0.0, 1.0) * (cells * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Columns that a terminal gives to `text`.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Without what could move the cursor or change colours: labels may hold whatever a path may.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

/// At most `width` columns, with `…` for what is missing in the middle.
pub fn cut_in_the_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else {
        return String::new();
    };
    let head = first_columns(text, room.div_ceil(2));
    let reversed: String = text.chars().rev().collect();
    let tail: String = first_columns(&reversed, room - head.width()).chars().rev().collect();
    format!("{head}…{tail}")
}

/// At most `width` columns, with `…` for what is missing at the end.
pub fn cut_at_the_end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    width
        .checked_sub(1)
        .map_or_else(String::new, |room| format!("{}…", first_columns(text, room)))
}

fn first_columns(text: &str, room: usize) -> String {
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken <= room
    };
    text.chars().take_while(fits).collect()
}

/// Lines of at most `width` columns, broken between words where there are some.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = cut_at_the_end(word, width);
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_while_they_are_short() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_204, "1,204"),
            (9_999, "9,999"),
            (32_730, "32,730"),
            (100_000, "100 k"),
            (123_456, "123 k"),
            (999_600, "1.0 M"),
            (1_250_000, "1.2 M"),
            (45_000_000_000, "45 G"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn rates_have_a_decimal_while_they_are_small() {
        for (number, text) in [
            (0.0, "0"),
            (0.3, "0.3"),
            (3.24, "3.2"),
            (9.96, "10"),
            (1_204.4, "1,204"),
        ] {
            assert_eq!(rate(number), text);
        }
    }

    #[test]
    fn bytes_are_in_powers_of_1024() {
        for (number, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (348_160, "340 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_258_291, "1.2 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn ages_have_two_parts() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (192, "3m12s"),
            (7_380, "2h03m"),
            (86_399, "23h59m"),
            (446_400, "5d04h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn times_share_their_unit() {
        assert_eq!(milliseconds_pair(0.42, 2.1), "0.4/2.1 ms");
        assert_eq!(milliseconds_pair(0.05, 0.08), "50/80 µs");
        assert_eq!(milliseconds_pair(0.08, 12.3), "80 µs/12 ms");
        assert_eq!(milliseconds_pair(1_500.0, 60_000.0), "1.5/60 s");
    }

    #[test]
    fn bars_are_as_long_as_their_part() {
        assert_eq!(bar(0.0, 8), "");
        assert_eq!(bar(0.5, 8), "████");
        assert_eq!(bar(1.0 / 3.0, 8), "██▋", "21.33 eighths: two whole ones and five");
        assert_eq!(bar(7.0, 2), "██");
        assert_eq!(bar(f64::NAN, 2), "");
    }

    #[test]
    fn cutting_counts_columns_and_not_characters() {
        assert_eq!(cut_in_the_middle("10.0.0.11:5432", 14), "10.0.0.11:5432");
        assert_eq!(cut_in_the_middle("backend.example.com:5432", 13), "backen…m:5432");
        // Each of these takes two columns: 5 to the left of the … have room for two of them.
        assert_eq!(cut_in_the_middle("データベース主系", 10), "デー…主系");
        assert_eq!(cut_at_the_end("データベース", 6), "デー…");
        assert_eq!(cut_in_the_middle("abc", 0), "");
        assert_eq!(cut_in_the_middle("abc", 1), "…");
    }

    #[test]
    fn nothing_can_move_the_cursor() {
        assert_eq!(harmless("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }

    #[test]
    fn sentences_break_between_words() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("incomprehensible", 7), ["incomp…"]);
        assert_eq!(wrapped("", 7), [] as [&str; 0]);
    }
}
