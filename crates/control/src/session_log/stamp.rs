//! Moments as RFC 3339 asks for them, in UTC: `2026-03-01T12:00:00.123Z`. Never reads a clock.

/// Written once and copied for as long as the moment stays the same.
#[derive(Debug)]
pub(super) struct Stamp {
    millis: u64,
    /// Whose date stands in `text`, days since 1970-01-01.
    day: u64,
    text: [u8; 24],
}

impl Stamp {
    pub(super) fn new() -> Self {
        Self {
            millis: 0,
            day: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }

    /// The text of a moment, milliseconds since 1970-01-01T00:00:00Z. A clock beyond the year 9999 stays at its end.
    pub(super) fn at(&mut self, millis: u64) -> &[u8; 24] {
        let millis = millis.min(MILLIS_MAX);
        if millis != self.millis {
            self.millis = millis;
            self.write(millis);
        }
        &self.text
    }

    fn write(&mut self, millis: u64) {
        let day = millis / DAY_MILLIS;
        if day != self.day {
            self.day = day;
            let (year, month, day) = date(day);
            put_digits(&mut self.text[0..4], year);
            put_digits(&mut self.text[5..7], month);
            put_digits(&mut self.text[8..10], day);
        }
        let seconds = millis % DAY_MILLIS / 1000;
        put_digits(&mut self.text[11..13], seconds / 3600);
        put_digits(&mut self.text[14..16], seconds / 60 % 60);
        put_digits(&mut self.text[17..19], seconds % 60);
        put_digits(&mut self.text[20..23], millis % 1000);
    }
}

/// Fills the whole place, with zeros in front.
fn put_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of the month. Counts years and months off one by one: it runs once a day.
fn date(mut day: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 can name.
const MILLIS_MAX: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    // Seconds by `date -u -d TIME +%s`.
    #[test]
    fn moments_in_a_calendar() {
        let mut stamp = Stamp::new();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_772_366_400_123, "2026-03-01T12:00:00.123Z"),
            (1_798_761_599_045, "2026-12-31T23:59:59.045Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(std::str::from_utf8(stamp.at(millis)), Ok(text));
        }
    }
}
