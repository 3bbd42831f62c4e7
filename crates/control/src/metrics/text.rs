//! Writes the Prometheus text format 0.0.4, the one that every scraper and `promtool check metrics` read.
//!
//! Absent on purpose: registration and state. Values are counted by workers already; a page is a walk over them.
//! Called by `metrics` only.

use ringway_core::stats::{HISTOGRAM_BOUNDS_US, HistogramTotal};
use std::fmt::{Display, Write};

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
pub(super) struct Samples<'a> {
    page: &'a mut String,
    name: &'static str,
    labels: &'static [&'static str],
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
        put(
            page,
            format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.word()),
        );
        Self { page, name, labels }
    }

    /// One value; `values` are parallel to the metric's labels.
    pub(super) fn value(&mut self, values: &[&str], value: impl Display) {
        self.line("", values, None, value);
    }

    /// One histogram; bounds and sum become seconds, buckets cumulative.
    pub(super) fn histogram(&mut self, values: &[&str], total: &HistogramTotal) {
        let mut count = 0;
        for (index, bucket) in total.buckets.iter().enumerate() {
            count += bucket;
            match HISTOGRAM_BOUNDS_US.get(index) {
                Some(&bound) => self.line("_bucket", values, Some(&seconds(bound)), count),
                None => self.line("_bucket", values, Some("+Inf"), count),
            }
        }
        self.line("_sum", values, None, seconds(total.sum_us));
        self.line("_count", values, None, count);
    }

    fn line(&mut self, suffix: &str, values: &[&str], le: Option<&str>, value: impl Display) {
        assert_eq!(
            values.len(),
            self.labels.len(),
            "{} is declared with other labels",
            self.name
        );
        put(self.page, format_args!("{}{suffix}", self.name));
        let pairs = self
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied())
            .chain(le.map(|bound| ("le", bound)));
        let mut open = false;
        for (label, value) in pairs {
            put(self.page, format_args!("{}{label}=\"", if open { ',' } else { '{' }));
            push_escaped(self.page, value);
            self.page.push('"');
            open = true;
        }
        put(self.page, format_args!("{} {value}\n", if open { "}" } else { "" }));
    }
}

/// Label values may hold anything but these three as they are (exposition formats, "Comments, help text, and type
/// information").
fn push_escaped(page: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            other => page.push(other),
        }
    }
}

/// Microseconds as decimal seconds, exact: a float would lose digits of a sum that grew for months.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = page.write_fmt(text);
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
        assert_eq!(seconds(u64::MAX), "18446744073709.551615");
    }
}
