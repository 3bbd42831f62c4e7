//! What the process under test thinks of its backends: status, log, and waiting for a change.

use crate::address::Address;
use crate::process::wait_for;
use crate::ringway::Ringway;
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime};

/// A line of the log that tells of a backend's condition.
#[derive(Clone, Debug)]
pub struct Told {
    /// When, as the line says.
    pub at: SystemTime,
    /// The backend.
    pub backend: String,
    /// The sentence.
    pub message: String,
}

impl Ringway {
    /// Every backend of every pool, as `/api/v1/status` has it.
    fn backends(&self) -> Vec<Value> {
        let (status, page) = self.get("/api/v1/status").expect("the admin port answers");
        assert_eq!(status, 200, "/api/v1/status: {page}");
        let page: Value = serde_json::from_str(&page).expect("the status is JSON");
        let pools = page["pools"].as_array().cloned().unwrap_or_default();
        let backends = |pool: Value| pool["backends"].as_array().cloned().unwrap_or_default();
        pools.into_iter().flat_map(backends).collect()
    }

    /// The condition of a backend, in the first pool that has it.
    pub fn condition(&self, address: &Address) -> String {
        let label = address.to_string();
        let backends = self.backends();
        let backend = backends.iter().find(|backend| backend["label"] == label.as_str());
        let backend = backend.unwrap_or_else(|| panic!("no backend {label} among {backends:#?}"));
        backend["condition"].as_str().expect("a word").to_owned()
    }

    /// Labels and conditions of backends that are not up.
    pub fn not_up(&self) -> Vec<String> {
        let backends = self.backends();
        let others = backends.iter().filter(|backend| backend["condition"] != "up");
        others
            .map(|backend| format!("{} {} {}", backend["label"], backend["condition"], backend["why"]))
            .collect()
    }

    /// Waits until a backend is in this condition; how long that took. Fails the test after `limit`.
    pub fn wait_for_condition(&self, address: &Address, wanted: &str, limit: Duration) -> Duration {
        let began = Instant::now();
        let found = wait_for(limit, || (self.condition(address) == wanted).then_some(()));
        assert!(
            found.is_some(),
            "{address} is {}, not {wanted}, after {limit:?}: {}",
            self.condition(address),
            self.log()
        );
        began.elapsed()
    }

    /// What the log tells of conditions, in its order.
    pub fn told(&self) -> Vec<Told> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = |line: Value| {
            let message = line["message"].as_str()?.to_owned();
            message.starts_with("backend is ").then_some(())?;
            Some(Told {
                at: moment(line["timestamp"].as_str()?),
                backend: line["backend"].as_str()?.to_owned(),
                message,
            })
        };
        lines.filter_map(told).collect()
    }
}

/// RFC 3339 in UTC, as logs write it.
fn moment(text: &str) -> SystemTime {
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("digits of RFC 3339");
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Days since 1970 of the civil calendar; March is the first month, so that the leap day is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11, 13) * 3_600 + number(14, 16) * 60 + number(17, 19);
    let fraction = text[19..].trim_start_matches('.').trim_end_matches('Z');
    let fraction = format!("0.{fraction}").parse::<f64>().unwrap_or(0.0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_secs_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `date -u -d ... +%s`.
    #[test]
    fn moments_are_read() {
        for (text, seconds, millis) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2024-02-29T12:34:56.250Z", 1_709_210_096, 250),
            ("2026-11-25T19:51:04.5Z", 1_795_636_264, 500),
        ] {
            let expected = Duration::from_secs(seconds) + Duration::from_millis(millis);
            assert_eq!(moment(text), SystemTime::UNIX_EPOCH + expected, "{text}");
        }
    }
}
