//! What was measured, and the arithmetic on it: medians, and medians of paired ratios.

use super::balancers::Balancer;
use std::collections::BTreeMap;

/// What is measured, in the order of measuring. Memory comes first, and the short connections next: the kernel
/// remembers their ends for a minute (TIME_WAIT), and has forgotten them when the next round reads memory again. It has
/// forgotten most when those with hellos come, which end in the same way and need room to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Metric {
    /// Memory per idle connection.
    Idle,
    /// Connect, one request, one response, close; 64 at once.
    Short,
    /// The same through Ringway with its session log and without, in turns.
    SessionLog,
    /// Datagrams of 64 bytes there and back, 64 sockets.
    Udp,
    /// The same in trains of eight, 1,200 bytes each.
    UdpTrain,
    /// Keep-alive requests over one connection.
    Small1,
    /// Keep-alive requests over 64 connections.
    Small64,
    /// Short connections that begin with a ClientHello and go to the backend of its name.
    Tls,
    /// Requests through Ringway over connections that were routed by their hello, and over plain ones, in turns.
    TlsRelay,
    /// Four iperf3 streams from the client to the backend.
    BulkUp,
    /// Four iperf3 streams from the backend to the client.
    BulkDown,
}

impl Metric {
    pub(super) const ALL: [Self; 11] = [
        Self::Idle,
        Self::Short,
        Self::SessionLog,
        Self::Udp,
        Self::UdpTrain,
        Self::Small1,
        Self::Small64,
        Self::Tls,
        Self::TlsRelay,
        Self::BulkUp,
        Self::BulkDown,
    ];

    /// Whether there is something to measure of it.
    pub(super) const fn is_taken_of(self, balancer: Balancer) -> bool {
        match self {
            Self::SessionLog | Self::TlsRelay => matches!(balancer, Balancer::Ringway),
            Self::Tls => balancer.routes_by_name() || matches!(balancer, Balancer::Direct),
            // The others have no UDP.
            Self::Udp | Self::UdpTrain => {
                matches!(
                    balancer,
                    Balancer::Ringway | Balancer::Nginx | Balancer::Sozu | Balancer::Direct
                )
            }
            _ => !matches!(balancer, Balancer::Sozu),
        }
    }

    /// In `--only`.
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::SessionLog => "log",
            Self::Udp | Self::UdpTrain => "udp",
            Self::Small1 => "small1",
            Self::Small64 => "small64",
            Self::Tls | Self::TlsRelay => "tls",
            Self::BulkUp | Self::BulkDown => "bulk",
            Self::Idle => "idle",
        }
    }

    /// In the JSON and in progress lines.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::UdpTrain => "udp_train",
            Self::TlsRelay => "tls_relay",
            Self::BulkUp => "bulk_up",
            Self::BulkDown => "bulk_down",
            _ => self.option(),
        }
    }
}

/// Named numbers of one measurement; the unit is part of the name.
pub(super) type Values = BTreeMap<&'static str, f64>;

/// One measurement of one round.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// From 0.
    pub(super) round: usize,
    pub(super) metric: Metric,
    pub(super) balancer: Balancer,
    pub(super) outcome: Result<Values, String>,
}

impl Sample {
    pub(super) fn new(round: usize, metric: Metric, balancer: Balancer, outcome: Result<Values, String>) -> Self {
        Self {
            round,
            metric,
            balancer,
            outcome,
        }
    }

    fn value(&self, key: &str) -> Option<f64> {
        self.outcome.as_ref().ok()?.get(key).copied()
    }

    /// A sentence if it could not be measured.
    pub(super) fn failure(&self) -> Option<String> {
        let message = self.outcome.as_ref().err()?;
        Some(format!(
            "round {}, {}, {}: {message}",
            self.round + 1,
            self.metric.name(),
            self.balancer.title()
        ))
    }

    /// A line of progress.
    pub(super) fn line(&self) -> String {
        let head = format!("{:<9} {:<17}", self.metric.name(), self.balancer.title());
        let values = match &self.outcome {
            Ok(values) => values,
            Err(message) => return format!("{head} FAILED: {message}"),
        };
        let shown: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{name} {}", number(*value)))
            .collect();
        format!("{head} {}", shown.join("  "))
    }
}

/// Three significant digits, thousands separated.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1_000.0 {
        return thousands(value);
    }
    let digits = match magnitude {
        0.0 => 0,
        m if m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// The median over all rounds; `None` if there is none.
pub(super) fn median_of(samples: &[Sample], metric: Metric, balancer: Balancer, key: &str) -> Option<f64> {
    let of = samples.iter().filter(|s| s.metric == metric && s.balancer == balancer);
    median(of.filter_map(|sample| sample.value(key)).collect())
}

/// Ringway's value divided by the peer's, round by round.
pub(super) fn paired_ratios(samples: &[Sample], metric: Metric, peer: Balancer, key: &str) -> Vec<f64> {
    let value = |round: usize, balancer: Balancer| {
        let mut of = samples
            .iter()
            .filter(|s| s.round == round && s.metric == metric && s.balancer == balancer);
        of.next()?.value(key)
    };
    let rounds = samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0);
    (0..rounds)
        .filter_map(|round| Some(value(round, Balancer::Ringway)? / value(round, peer)?))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        Some(upper)
    } else {
        Some((values[middle - 1] + upper) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: usize, balancer: Balancer, cpu: f64) -> Sample {
        Sample::new(round, Metric::Short, balancer, Ok(Values::from([("cpu_us", cpu)])))
    }

    #[test]
    fn ratios_pair_values_of_the_same_round() {
        let mut samples = vec![
            sample(0, Balancer::Ringway, 50.0),
            sample(0, Balancer::Nginx, 100.0),
            sample(1, Balancer::Ringway, 90.0),
            sample(1, Balancer::Nginx, 100.0),
            sample(2, Balancer::Ringway, 60.0),
            sample(2, Balancer::Nginx, 100.0),
        ];
        assert_eq!(
            paired_ratios(&samples, Metric::Short, Balancer::Nginx, "cpu_us"),
            [0.5, 0.9, 0.6]
        );
        // A round in which one of the two failed has no ratio.
        samples[1].outcome = Err("refused".to_owned());
        assert_eq!(
            paired_ratios(&samples, Metric::Short, Balancer::Nginx, "cpu_us"),
            [0.9, 0.6]
        );
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown: Vec<String> = [0.0, 0.0456, 0.226, 12.34, 345.6, 1_044.0, 1_234_567.8]
            .map(number)
            .to_vec();
        assert_eq!(shown, ["0", "0.046", "0.226", "12.3", "346", "1,044", "1,234,568"]);
        assert_eq!(number(-2_048.0), "-2,048");
    }
}
