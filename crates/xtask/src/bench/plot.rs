//! The run as an SVG of bar charts, one panel per figure, written by hand: no library, no script, one file.

use super::balancers::Balancer;
use super::host::Facts;
use super::results::{Metric, Sample, median_of, number};
use std::fmt::Write;

struct Panel {
    title: &'static str,
    unit: &'static str,
    metric: Metric,
    key: &'static str,
    better: &'static str,
}

const fn panel(
    title: &'static str,
    unit: &'static str,
    metric: Metric,
    key: &'static str,
    better: &'static str,
) -> Panel {
    Panel {
        title,
        unit,
        metric,
        key,
        better,
    }
}

const LESS: &str = "less is better";
const MORE: &str = "more is better";

/// Left to right, then down.
const PANELS: &[Panel] = &[
    panel(
        "Bulk, client to backend",
        "CPU seconds per GB",
        Metric::BulkUp,
        "cpu_s_per_gb",
        LESS,
    ),
    panel(
        "Bulk, backend to client",
        "CPU seconds per GB",
        Metric::BulkDown,
        "cpu_s_per_gb",
        LESS,
    ),
    panel(
        "Bulk, client to backend",
        "Gbit/s",
        Metric::BulkUp,
        "gbit_per_second",
        MORE,
    ),
    panel(
        "Bulk, backend to client",
        "Gbit/s",
        Metric::BulkDown,
        "gbit_per_second",
        MORE,
    ),
    panel(
        "Requests, 64 connections",
        "CPU µs each",
        Metric::Small64,
        "cpu_us",
        LESS,
    ),
    panel("Requests, 64 connections", "p99 in µs", Metric::Small64, "p99_us", LESS),
    panel("Short connections", "CPU µs each", Metric::Short, "cpu_us", LESS),
    panel(
        "Idle connection",
        "bytes of process memory",
        Metric::Idle,
        "process_bytes",
        LESS,
    ),
];

const COLUMNS: usize = 2;
const MARGIN: f64 = 24.0;
const HEAD: f64 = 84.0;
const PANEL_WIDTH: f64 = 440.0;
const PANEL_HEAD: f64 = 44.0;
const PANEL_GAP: f64 = 28.0;
const BAR_HEIGHT: f64 = 18.0;
const BAR_STEP: f64 = 26.0;
const LABEL_WIDTH: f64 = 124.0;
const VALUE_WIDTH: f64 = 76.0;
const BAR_WIDTH: f64 = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH;

/// A bar that is this many times longer than the next one is cut, so that the others stay readable.
const OUTLIER: f64 = 3.0;

pub(super) fn svg(facts: &Facts, samples: &[Sample]) -> String {
    let charts: Vec<(&Panel, Vec<(Balancer, f64)>)> = PANELS
        .iter()
        .map(|panel| (panel, bars(panel, samples)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let bars_max = charts.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
    let panel_height = PANEL_HEAD + bars_max as f64 * BAR_STEP + PANEL_GAP;
    let rows = charts.len().div_ceil(COLUMNS);
    let width = 2.0 * MARGIN + COLUMNS as f64 * PANEL_WIDTH + MARGIN;
    let height = HEAD + rows as f64 * panel_height + MARGIN;

    let fact = |name: &str| {
        facts
            .iter()
            .find(|(n, _)| *n == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let subtitle = format!("{} · {} · {}", fact("cpu"), fact("kernel"), fact("date"));
    text(
        &mut svg,
        MARGIN,
        38.0,
        "font-size=\"20\" font-weight=\"bold\" fill=\"#111827\"",
        "Ringway beside other balancers",
    );
    text(
        &mut svg,
        MARGIN,
        60.0,
        "fill=\"#6b7280\"",
        &format!("one core for the balancer; {subtitle}"),
    );
    for (index, (panel, bars)) in charts.iter().enumerate() {
        let x = MARGIN + (index % COLUMNS) as f64 * (PANEL_WIDTH + MARGIN);
        let y = HEAD + (index / COLUMNS) as f64 * panel_height;
        draw(&mut svg, panel, bars, x, y);
    }
    svg += "</svg>\n";
    svg
}

fn bars(panel: &Panel, samples: &[Sample]) -> Vec<(Balancer, f64)> {
    let median = |b: &Balancer| median_of(samples, panel.metric, *b, panel.key).map(|value| (*b, value.max(0.0)));
    Balancer::ALL.iter().filter_map(median).collect()
}

fn draw(svg: &mut String, panel: &Panel, bars: &[(Balancer, f64)], x: f64, y: f64) {
    let heading = format!("{} – {}", panel.title, panel.unit);
    text(
        svg,
        x,
        y + 16.0,
        "font-size=\"15\" font-weight=\"bold\" fill=\"#111827\"",
        &heading,
    );
    text(svg, x, y + 33.0, "font-size=\"11\" fill=\"#6b7280\"", panel.better);
    let full = full_scale(bars);
    for (row, (balancer, value)) in bars.iter().enumerate() {
        let top = y + PANEL_HEAD + row as f64 * BAR_STEP;
        let baseline = top + BAR_HEIGHT - 5.0;
        let cut = *value > full;
        let length = if full > 0.0 {
            (value / full).min(1.0) * BAR_WIDTH
        } else {
            0.0
        };
        let (left, colour) = (x + LABEL_WIDTH, colour(*balancer));
        text(
            svg,
            left - 8.0,
            baseline,
            "text-anchor=\"end\" fill=\"#374151\"",
            balancer.title(),
        );
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{colour}\"/>"
        );
        if cut {
            // A slanted gap across the bar.
            let (at, low) = (left + BAR_WIDTH * 0.86, top + BAR_HEIGHT + 2.0);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {low:.1} l8 -22 h6 l-8 22 z\" fill=\"#ffffff\"/>"
            );
        }
        text(svg, left + length + 6.0, baseline, "fill=\"#111827\"", &number(*value));
    }
}

/// The value of a bar of full width.
fn full_scale(bars: &[(Balancer, f64)]) -> f64 {
    let mut values: Vec<f64> = bars.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    match values[..] {
        [.., second, largest] if second > 0.0 && largest > OUTLIER * second => OUTLIER / 2.0 * second,
        [.., largest] => largest,
        [] => 0.0,
    }
}

const fn colour(balancer: Balancer) -> &'static str {
    match balancer {
        Balancer::Ringway => "#0f766e",
        Balancer::Haproxy => "#94a3b8",
        Balancer::Nginx => "#94a3b8",
        Balancer::Sozu => "#a78bfa",
        Balancer::Naive => "#cbd5e1",
        Balancer::Direct => "#e2e8f0",
    }
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::results::Values;
    use super::*;

    #[test]
    fn an_outlier_is_cut_and_the_others_keep_their_proportion() {
        let bars = [
            (Balancer::Ringway, 1_000.0),
            (Balancer::Nginx, 10_000.0),
            (Balancer::Naive, 109_000.0),
        ];
        assert_eq!(full_scale(&bars), 15_000.0);
        assert_eq!(full_scale(&bars[..1]), 1_000.0);
        assert_eq!(full_scale(&[(Balancer::Ringway, 2.0), (Balancer::Nginx, 3.0)]), 3.0);
    }

    #[test]
    fn only_measured_panels_are_drawn_and_markup_is_escaped() {
        let values = Ok(Values::from([("process_bytes", 1_044.0)]));
        let samples = [Sample::new(0, Metric::Idle, Balancer::Ringway, values)];
        let svg = svg(&vec![("cpu", "a <b> & c".to_owned())], &samples);
        assert!(
            svg.contains(">1,044</text>") && svg.contains("a &lt;b&gt; &amp; c"),
            "{svg}"
        );
        assert_eq!(svg.matches("less is better").count(), 1);
        assert!(!svg.contains("Gbit"), "{svg}");
    }
}
