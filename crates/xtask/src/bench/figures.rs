//! The figures that a run must show, declared once, and the verdict on each.
//!
//! A ratio is the median over rounds of Ringway's value divided by the peer's of the same round. "The better one" is
//! the peer that makes the figure harder to reach: for CPU the higher of the two ratios, for throughput the lower.

use super::balancers::Balancer;
use super::results::{Metric, Sample, median, median_of, paired_ratios};

/// What Ringway's value is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Against {
    /// The better of HAProxy and nginx.
    Better,
    One(Balancer),
    /// The value itself.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One required figure.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    metric: Metric,
    key: &'static str,
    pub(super) against: Against,
    pub(super) bound: Bound,
    /// What we would like to see, as a ratio or value of the same kind; `None`: nothing beyond the bound.
    pub(super) aim: Option<f64>,
}

const fn figure(name: &'static str, metric: Metric, key: &'static str, against: Against, bound: Bound) -> Figure {
    Figure {
        name,
        metric,
        key,
        against,
        bound,
        aim: None,
    }
}

const fn aiming(figure: Figure, aim: f64) -> Figure {
    Figure {
        aim: Some(aim),
        ..figure
    }
}

const HAPROXY: Against = Against::One(Balancer::Haproxy);
const NGINX: Against = Against::One(Balancer::Nginx);

use Against::{Better, Nothing};
use Bound::{AtLeast, AtMost};
use Metric::{BulkDown, BulkUp, Idle, SessionLog, Short, Small64, Tls, TlsRelay, Udp, UdpTrain};

pub(super) const FIGURES: &[Figure] = &[
    aiming(
        figure("bulk up, CPU per GB", BulkUp, "cpu_s_per_gb", Better, AtMost(0.70)),
        0.5,
    ),
    figure("bulk up, Gbit/s", BulkUp, "gbit_per_second", Better, AtLeast(0.90)),
    aiming(
        figure("bulk down, CPU per GB", BulkDown, "cpu_s_per_gb", Better, AtMost(0.70)),
        0.5,
    ),
    figure("bulk down, Gbit/s", BulkDown, "gbit_per_second", Better, AtLeast(0.90)),
    aiming(
        figure(
            "64 connections, CPU per request",
            Small64,
            "cpu_us",
            HAPROXY,
            AtMost(0.94),
        ),
        0.88,
    ),
    aiming(
        figure(
            "64 connections, CPU per request",
            Small64,
            "cpu_us",
            NGINX,
            AtMost(1.02),
        ),
        0.95,
    ),
    figure(
        "64 connections, requests/s",
        Small64,
        "per_second",
        Better,
        AtLeast(0.95),
    ),
    figure("64 connections, p99", Small64, "p99_us", Better, AtMost(1.1)),
    aiming(
        figure("short connections, CPU each", Short, "cpu_us", Better, AtMost(1.0)),
        0.93,
    ),
    aiming(
        figure("TLS connections by name, CPU each", Tls, "cpu_us", Better, AtMost(1.0)),
        0.93,
    ),
    // It must cost the same. Of 27 rounds that measured one plain listener twice, beside compilers, 26 lay between 0.987 and
    // 1.015 and one at 0.94; medians of five between 0.993 and 1.007. What is above this bound is not noise.
    figure(
        "TLS relay after the hello, CPU to that of plain TCP",
        TlsRelay,
        "cpu_ratio",
        Nothing,
        AtMost(1.02),
    ),
    figure("UDP round trips, CPU each", Udp, "cpu_us", NGINX, AtMost(0.95)),
    figure(
        "UDP trains of eight, CPU per datagram",
        UdpTrain,
        "cpu_us",
        NGINX,
        AtMost(0.5),
    ),
    figure(
        "short connections with the session log, CPU to those without",
        SessionLog,
        "cpu_ratio",
        Nothing,
        AtMost(1.03),
    ),
    figure(
        "idle connection, bytes of process memory",
        Idle,
        "process_bytes",
        Nothing,
        AtMost(1_280.0),
    ),
];

/// One figure as it was seen.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) figure: &'static Figure,
    /// Medians of the paired ratios; `None` where nothing was measured.
    pub(super) haproxy: Option<Spread>,
    pub(super) nginx: Option<Spread>,
    /// What is held against the bound.
    pub(super) seen: Option<f64>,
    /// `None`: not measured.
    pub(super) passed: Option<bool>,
}

/// A median with the extremes of its rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

pub(super) fn judge(samples: &[Sample]) -> Vec<Verdict> {
    FIGURES.iter().map(|figure| figure.judge(samples)).collect()
}

impl Figure {
    fn judge(&'static self, samples: &[Sample]) -> Verdict {
        let ratio = |peer: Balancer| spread(&paired_ratios(samples, self.metric, peer, self.key));
        let (haproxy, nginx) = (ratio(Balancer::Haproxy), ratio(Balancer::Nginx));
        let seen = match self.against {
            Against::Nothing => median_of(samples, self.metric, Balancer::Ringway, self.key),
            Against::One(Balancer::Haproxy) => haproxy.map(|s| s.median),
            Against::One(_) => nginx.map(|s| s.median),
            Against::Better => match (haproxy, nginx) {
                (Some(a), Some(b)) => Some(self.bound.harder(a.median, b.median)),
                _ => None,
            },
        };
        Verdict {
            figure: self,
            haproxy,
            nginx,
            seen,
            passed: seen.map(|seen| self.bound.holds(seen)),
        }
    }
}

impl Bound {
    fn holds(self, seen: f64) -> bool {
        match self {
            Self::AtMost(bound) => seen <= bound,
            Self::AtLeast(bound) => seen >= bound,
        }
    }

    fn harder(self, a: f64, b: f64) -> f64 {
        match self {
            Self::AtMost(_) => a.max(b),
            Self::AtLeast(_) => a.min(b),
        }
    }
}

fn spread(ratios: &[f64]) -> Option<Spread> {
    Some(Spread {
        median: median(ratios.to_vec())?,
        low: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        high: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::Values;
    use super::*;

    fn bulk(round: usize, balancer: Balancer, cpu: f64, gbit: f64) -> Sample {
        let values = Values::from([("cpu_s_per_gb", cpu), ("gbit_per_second", gbit)]);
        Sample::new(round, Metric::BulkUp, balancer, Ok(values))
    }

    #[test]
    fn the_better_peer_is_the_one_that_is_harder_to_beat() {
        let samples = [
            bulk(0, Balancer::Ringway, 0.25, 14.0),
            bulk(0, Balancer::Haproxy, 0.50, 20.0),
            bulk(0, Balancer::Nginx, 0.40, 10.0),
        ];
        let verdicts = judge(&samples);
        // CPU: 0.25 / 0.40 against nginx; throughput: 14 / 20 against HAProxy, which misses 0.9.
        assert_eq!((verdicts[0].seen, verdicts[0].passed), (Some(0.625), Some(true)));
        assert_eq!((verdicts[1].seen, verdicts[1].passed), (Some(0.7), Some(false)));
        // Nothing measured is not a pass.
        assert_eq!((verdicts[2].seen, verdicts[2].passed), (None, None));
    }

    #[test]
    fn a_missing_peer_leaves_the_figure_open() {
        let samples = [
            bulk(0, Balancer::Ringway, 0.25, 14.0),
            bulk(0, Balancer::Haproxy, 0.50, 20.0),
        ];
        assert_eq!(judge(&samples)[0].passed, None);
    }
}
