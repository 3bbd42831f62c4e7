//! A reader of the Prometheus text format, and a GET without a library.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads a page; lines that are no samples are an error.
    pub fn parse(page: &str) -> Result<Self, String> {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).ok_or(format!("not a sample: {line}")));
        Ok(Self {
            samples: samples.collect::<Result<_, _>>()?,
        })
    }

    /// The sum over all series of this name that carry these labels; `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |own: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| own.get(*key).is_some_and(|own| own == value))
        };
        let found: Vec<f64> = self
            .samples
            .iter()
            .filter(|(own, at, _)| own == name && fits(at))
            .map(|sample| sample.2)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// The sum over all series of this name that carry these labels; a series that does not exist yet counts as 0.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels).unwrap_or(0.0) as u64
    }

    /// Name and labels of every series.
    pub fn series(&self) -> BTreeSet<String> {
        self.samples
            .iter()
            .map(|(name, labels, _)| format!("{name}{labels:?}"))
            .collect()
    }

    /// Names that are there, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.samples.iter().map(|sample| sample.0.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (name, rest) = match line.find('{') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => {
            let (name, value) = line.split_once(' ')?;
            return Some((name.to_owned(), BTreeMap::new(), value.trim().parse().ok()?));
        }
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    while !rest.starts_with('}') {
        let (key, after) = rest.trim_start_matches(',').split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(key.to_owned(), value);
        rest = after;
    }
    Some((name.to_owned(), labels, rest[1..].trim().parse().ok()?))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// GET over a fresh connection: status and body.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    status
        .map(|status| (status, body))
        .ok_or_else(|| io::Error::other(format!("no HTTP answer: {answer:?}")))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        let (Some(chunk), true) = (rest.get(..size), size > 0) else {
            break;
        };
        whole.push_str(chunk);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the exposition format's documentation (prometheus.io), shortened.
    #[test]
    fn reads_the_documented_example() {
        let page = "# HELP http_requests_total The total number of HTTP requests.\n\
                    # TYPE http_requests_total counter\n\
                    http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n"
            .replace(" 1395066363000", "");
        let page = page
            + "msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9\n\
               metric_without_timestamp_and_labels 12.47\n";
        let metrics = Metrics::parse(&page).expect("the example is valid");
        assert_eq!(metrics.sum("http_requests_total", &[("code", "200")]), Some(1027.0));
        assert_eq!(metrics.sum("http_requests_total", &[("code", "400")]), None);
        let path = [
            ("path", "C:\\DIR\\FILE.TXT"),
            ("error", "Cannot find file:\n\"FILE.TXT\""),
        ];
        assert_eq!(
            metrics.sum("msdos_file_access_time_seconds", &path),
            Some(1.458255915e9)
        );
        assert_eq!(metrics.sum("metric_without_timestamp_and_labels", &[]), Some(12.47));
    }

    #[test]
    fn refuses_what_is_no_sample() {
        for line in ["name", "name{a=\"b\" 1", "name{a} 1", "name{a=\"b\"} one"] {
            assert!(Metrics::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn joins_chunks() {
        assert_eq!(unchunked("4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n"), "Wikipedia");
    }
}
