//! Writes the Prometheus text format 0.0.4, the one that every scraper and `promtool check metrics` read.
//!
//! Absent on purpose: registration and state. Values are counted by workers already; a page is a walk over them.
//! Called by `metrics` only.

use ringway_core::stats::{HISTOGRAM_BOUNDS_US, HistogramTotal};

/// What the answer to a scrape must be labelled as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The Prometheus type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with sum and count.
    Histogram,
}

impl Kind {
    /// The word of the format.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Takes the samples of one metric.
///
/// A page of a thousand backends has sixty thousand lines, so nothing here goes through the formatting machinery, and
/// what the lines of one histogram share is written once.
pub(super) struct Samples<'a> {
    page: &'a mut String,
    name: &'static str,
    labels: &'static [&'static str],
    /// The labels of the histogram that is being written; used again and again.
    series: String,
}

impl<'a> Samples<'a> {
    /// Writes the head of a metric; its samples follow.
    pub(super) fn begin(
        page: &'a mut String,
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &str,
    ) -> Self {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        for part in ["# HELP ", name, " ", &help, "\n# TYPE ", name, " ", kind.word(), "\n"] {
            page.push_str(part);
        }
        Self {
            page,
            name,
            labels,
            series: String::new(),
        }
    }

    /// One value; `values` are parallel to the metric's labels.
    pub(super) fn value(&mut self, values: &[&str], value: u64) {
        self.page.push_str(self.name);
        if !values.is_empty() {
            self.page.push('{');
        }
        push_pairs(self.page, self.name, self.labels, values);
        self.page.push_str(if values.is_empty() { " " } else { "} " });
        push_integer(self.page, value);
        self.page.push('\n');
    }

    /// One histogram; bounds and sum become seconds, buckets cumulative.
    pub(super) fn histogram(&mut self, values: &[&str], total: &HistogramTotal) {
        let Self { page, name, series, .. } = self;
        series.clear();
        push_pairs(series, name, self.labels, values);
        let comma = if series.is_empty() { "" } else { "," };
        let mut count = 0;
        for (index, bucket) in total.buckets.iter().enumerate() {
            count += bucket;
            for part in [name, "_bucket{", series, comma, "le=\""] {
                page.push_str(part);
            }
            match HISTOGRAM_BOUNDS_US.get(index) {
                Some(&bound) => push_seconds(page, bound),
                None => page.push_str("+Inf"),
            }
            page.push_str("\"} ");
            push_integer(page, count);
            page.push('\n');
        }
        let (open, close) = if series.is_empty() { ("", " ") } else { ("{", "} ") };
        for part in [name, "_sum", open, series, close] {
            page.push_str(part);
        }
        push_seconds(page, total.sum_us);
        for part in ["\n", name, "_count", open, series, close] {
            page.push_str(part);
        }
        push_integer(page, count);
        page.push('\n');
    }
}

/// `label="value"` for each label, with commas between.
fn push_pairs(text: &mut String, name: &str, labels: &[&str], values: &[&str]) {
    assert_eq!(values.len(), labels.len(), "{name} is declared with other labels");
    for (at, (label, value)) in labels.iter().zip(values).enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(label);
        text.push_str("=\"");
        push_escaped(text, value);
        text.push('"');
    }
}

/// Label values may hold anything but these three as they are (exposition formats, "Comments, help text, and type
/// information").
fn push_escaped(text: &mut String, value: &str) {
    let mut plain = 0;
    // All three are ASCII, so these positions are between characters.
    for (at, byte) in value.bytes().enumerate() {
        let escaped = match byte {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            b'\n' => "\\n",
            _ => continue,
        };
        text.push_str(&value[plain..at]);
        text.push_str(escaped);
        plain = at + 1;
    }
    text.push_str(&value[plain..]);
}

/// Decimal digits.
fn push_integer(text: &mut String, mut value: u64) {
    if value < 10 {
        // Most numbers of most pages.
        text.push(digit(value));
        return;
    }
    // As many digits as the largest has.
    let mut digits = ['0'; 20];
    let mut first = digits.len();
    while value > 0 {
        first -= 1;
        digits[first] = digit(value % 10);
        value /= 10;
    }
    text.extend(&digits[first..]);
}

/// Microseconds as decimal seconds, exact: a float would lose digits of a sum that grew for months.
fn push_seconds(text: &mut String, us: u64) {
    push_integer(text, us / 1_000_000);
    let (mut rest, mut unit) = (us % 1_000_000, 100_000);
    if rest > 0 {
        text.push('.');
    }
    while rest > 0 {
        text.push(digit(rest / unit));
        rest %= unit;
        unit /= 10;
    }
}

/// Of a number below 10.
fn digit(value: u64) -> char {
    char::from(b'0' + value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(write: impl FnOnce(&mut Samples<'_>), kind: Kind, labels: &'static [&'static str]) -> String {
        let mut page = String::new();
        write(&mut Samples::begin(&mut page, "ringway_x", kind, labels, "Help."));
        page
    }

    #[test]
    fn backslash_quote_and_newline_are_escaped_in_label_values() {
        let page = page(
            |samples| samples.value(&["a\\b\"c\nd\té"], 7),
            Kind::Gauge,
            &["listener"],
        );
        assert_eq!(
            page,
            "# HELP ringway_x Help.\n# TYPE ringway_x gauge\nringway_x{listener=\"a\\\\b\\\"c\\nd\té\"} 7\n"
        );
    }

    #[test]
    fn without_labels_there_are_no_braces() {
        let page = page(|samples| samples.value(&[], 7), Kind::Gauge, &[]);
        assert!(page.ends_with("\nringway_x 7\n"), "{page}");
    }

    #[test]
    fn newlines_in_help_are_escaped() {
        let mut page = String::new();
        Samples::begin(&mut page, "x", Kind::Counter, &[], "a\nb\\c");
        assert_eq!(page, "# HELP x a\\nb\\\\c\n# TYPE x counter\n");
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_infinity_sum_and_count() {
        let mut total = HistogramTotal::default();
        total.buckets[0] = 2; // up to 100 µs
        total.buckets[4] = 3; // up to 2.5 ms
        total.buckets[18] = 1; // above 1 h
        total.sum_us = 3_601_007_500;
        let page = page(
            |samples| samples.histogram(&["web"], &total),
            Kind::Histogram,
            &["pool"],
        );
        let lines: Vec<&str> = page.lines().skip(2).collect();
        assert_eq!(lines.len(), 18 + 3);
        assert_eq!(lines[0], "ringway_x_bucket{pool=\"web\",le=\"0.0001\"} 2");
        assert_eq!(lines[3], "ringway_x_bucket{pool=\"web\",le=\"0.001\"} 2");
        assert_eq!(lines[4], "ringway_x_bucket{pool=\"web\",le=\"0.0025\"} 5");
        assert_eq!(lines[17], "ringway_x_bucket{pool=\"web\",le=\"3600\"} 5");
        assert_eq!(lines[18], "ringway_x_bucket{pool=\"web\",le=\"+Inf\"} 6");
        assert_eq!(lines[19], "ringway_x_sum{pool=\"web\"} 3601.0075");
        assert_eq!(lines[20], "ringway_x_count{pool=\"web\"} 6");
    }

    #[test]
    fn seconds_are_exact() {
        for (us, text) in [
            (0, "0"),
            (1, "0.000001"),
            (100, "0.0001"),
            (1_000_000, "1"),
            (10_000_000, "10"),
        ] {
            assert_eq!(seconds(us), text);
        }
        assert_eq!(seconds(1_020_300), "1.0203");
        assert_eq!(seconds(u64::MAX), "18446744073709.551615");
    }

    fn seconds(us: u64) -> String {
        let mut text = String::new();
        push_seconds(&mut text, us);
        text
    }

    #[test]
    fn integers_have_all_their_digits_and_no_others() {
        for (value, digits) in [
            (0, "0"),
            (9, "9"),
            (10, "10"),
            (101, "101"),
            (1_000_000, "1000000"),
            (u64::MAX, "18446744073709551615"),
        ] {
            let mut text = String::from("=");
            push_integer(&mut text, value);
            assert_eq!(text[1..], *digits);
        }
    }

    #[test]
    fn a_histogram_without_labels_has_the_bound_alone() {
        let page = page(
            |samples| samples.histogram(&[], &HistogramTotal::default()),
            Kind::Histogram,
            &[],
        );
        let lines: Vec<&str> = page.lines().skip(2).collect();
        assert_eq!(lines[0], "ringway_x_bucket{le=\"0.0001\"} 0");
        assert_eq!(lines[19..], ["ringway_x_sum 0", "ringway_x_count 0"]);
    }
}
