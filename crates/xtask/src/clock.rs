//! The wall clock as text, for reports.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in UTC, like `2026-03-01 14:05 UTC`.
pub(crate) fn now_utc() -> String {
    // A clock before 1970 is shown as 1970: a wrong date in a report harms nobody.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    format_utc(seconds)
}

fn format_utc(unix_seconds: u64) -> String {
    let (year, month, day) = civil(unix_seconds / 86_400);
    let of_day = unix_seconds % 86_400;
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        of_day / 3_600,
        of_day / 60 % 60
    )
}

/// Days since 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March, so that the leap
/// day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097; // of 400 years
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::format_utc;

    /// Expected values from `date -u -d @N`.
    #[test]
    fn dates_agree_with_coreutils() {
        assert_eq!(format_utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(format_utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(format_utc(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(format_utc(4_102_444_800), "2100-01-01 00:00 UTC");
    }
}
