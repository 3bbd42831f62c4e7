//! The command line of `cargo xtask bench`.

use super::balancers::Balancer;
use super::results::Metric;
use std::path::PathBuf;

pub(super) const USAGE: &str = "\
usage: cargo xtask bench [--quick] [--rounds N] [--only LIST] [--balancers LIST] [--out DIR]
  --quick            one short round, within two minutes; written as quick.* instead of latest.*
  --rounds N         alternating rounds, 5 by default
  --only LIST        of short,log,udp,small1,small64,tls,bulk,idle
  --balancers LIST   of ringway,haproxy,nginx,sozu,naive,direct; sozu only for UDP, and if it is installed
  --out DIR          instead of bench/results
A run with --only, --balancers or --rounds is written as partial.*; only a complete one updates README.md.";

const ROUNDS: usize = 5;
const ROUNDS_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct Options {
    pub(super) quick: bool,
    pub(super) rounds: usize,
    /// In the order of measuring.
    pub(super) metrics: Vec<Metric>,
    pub(super) balancers: Vec<Balancer>,
    pub(super) out: Option<PathBuf>,
    /// As typed, for the report.
    arguments: Vec<String>,
}

impl Options {
    /// `None`: help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            quick: false,
            rounds: 0,
            metrics: Metric::ALL.to_vec(),
            balancers: Balancer::ALL.into_iter().filter(|it| it.is_there()).collect(),
            out: None,
            arguments: arguments.to_vec(),
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"));
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--rounds" => options.rounds = parse_rounds(value()?)?,
                "--only" => options.metrics = parse_metrics(value()?)?,
                "--balancers" => options.balancers = parse_balancers(value()?)?,
                "--out" => options.out = Some(PathBuf::from(value()?)),
                other => return Err(format!("bench does not know {other:?}\n{USAGE}")),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 1 } else { ROUNDS };
        }
        Ok(Some(options))
    }

    /// Everything was measured as often as the required figures ask for.
    pub(super) fn is_complete(&self) -> bool {
        !self.quick
            && self.rounds >= ROUNDS
            && self.metrics.len() == Metric::ALL.len()
            && Balancer::ALL
                .iter()
                .all(|it| it.is_optional() || self.balancers.contains(it))
    }

    /// The name of the files without extension.
    pub(super) fn stem(&self) -> &'static str {
        if self.is_complete() {
            "latest"
        } else if self.quick {
            "quick"
        } else {
            "partial"
        }
    }

    pub(super) fn command(&self) -> String {
        ["cargo", "xtask", "bench"]
            .into_iter()
            .chain(self.arguments.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn parse_rounds(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))
        .ok_or_else(|| format!("--rounds {text:?} is not a number from 1 to {ROUNDS_MAX}"))
}

/// `bulk` means both directions, `udp` and `tls` two metrics each; the order of measuring stays that of [`Metric::ALL`].
fn parse_metrics(list: &str) -> Result<Vec<Metric>, String> {
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    let known = |name: &str| Metric::ALL.iter().any(|metric| metric.option() == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(format!(
            "--only does not know {unknown:?}; it takes short,log,udp,small1,small64,tls,bulk,idle"
        ));
    }
    Ok(Metric::ALL
        .iter()
        .copied()
        .filter(|metric| names.contains(&metric.option()))
        .collect())
}

fn parse_balancers(list: &str) -> Result<Vec<Balancer>, String> {
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    let known = |name: &str| Balancer::ALL.iter().any(|balancer| balancer.option() == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(format!(
            "--balancers does not know {unknown:?}; it takes ringway,haproxy,nginx,sozu,naive,direct"
        ));
    }
    Ok(Balancer::ALL
        .iter()
        .copied()
        .filter(|balancer| names.contains(&balancer.option()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words).map(|options| options.expect("no help was asked for"))
    }

    #[test]
    fn only_a_complete_run_is_called_latest() {
        assert_eq!(parse("").map(|o| (o.stem(), o.rounds)), Ok(("latest", 5)));
        assert_eq!(parse("--rounds 7").map(|o| o.stem()), Ok("latest"));
        assert_eq!(parse("--quick").map(|o| (o.stem(), o.rounds)), Ok(("quick", 1)));
        assert_eq!(parse("--only idle").map(|o| o.stem()), Ok("partial"));
        assert_eq!(parse("--rounds 4").map(|o| o.stem()), Ok("partial"));
        assert_eq!(parse("--balancers haproxy,direct").map(|o| o.stem()), Ok("partial"));
    }

    #[test]
    fn bulk_is_both_directions() {
        let options = parse("--only idle,bulk").expect("both are known");
        assert_eq!(options.metrics, [Metric::Idle, Metric::BulkUp, Metric::BulkDown]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("--rounds 0").is_err_and(|e| e.contains("from 1 to 100")));
        assert!(parse("--only bulk,tiny").is_err_and(|e| e.contains("\"tiny\"")));
        assert!(parse("--out").is_err_and(|e| e.contains("needs a value")));
        assert!(parse("--slow").is_err_and(|e| e.contains("--slow")));
    }
}
