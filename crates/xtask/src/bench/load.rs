//! The load generators as this driver sees them: started pinned to the load core, their output turned into numbers.

use super::balancers::{Services, free_addresses};
use super::guard::Child;
use crate::tools;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// What a readiness check sends through the echo service.
pub(super) const PROBE: &[u8; 5] = b"ready";

/// Beyond its own duration no load may take longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// The backends that all balancers share.
pub(super) struct Backends {
    pub(super) services: Services,
    /// Those that TLS connections are routed to. The direct path leads to the first.
    pub(super) named: Vec<Named>,
    _children: [Child; 2],
}

/// A backend that answers hellos with its name in them.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// Starts load programs: where they are, which core is theirs, where their logs go.
pub(super) struct Loader {
    pub(super) program: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) core: usize,
}

/// What one wrk run saw.
#[derive(Debug, PartialEq)]
pub(super) struct Wrk {
    pub(super) requests: f64,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Socket errors and answers that are not 200.
    pub(super) errors: f64,
}

/// What one iperf3 run saw at the receiving end.
#[derive(Debug, PartialEq)]
pub(super) struct Iperf {
    pub(super) bytes: f64,
    pub(super) bits_per_second: f64,
}

/// What one run of datagrams saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct UdpSeen {
    /// Those that came back.
    pub(super) datagrams: f64,
    pub(super) lost: f64,
    pub(super) stalls: f64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What one run of short connections saw.
#[derive(Debug, PartialEq)]
pub(super) struct Short {
    pub(super) connections: f64,
    pub(super) errors: f64,
    pub(super) first_error: String,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What one run of requests over long connections saw.
#[derive(Debug, PartialEq)]
pub(super) struct LongSeen {
    pub(super) round_trips: f64,
    pub(super) seconds: f64,
}

/// Connections whose hello was answered, and that wait for the word to go on.
pub(super) struct Long {
    child: Child,
    lines: Receiver<String>,
}

/// Idle connections that are held until it is dropped.
pub(super) struct Idle {
    child: Child,
    lines: Receiver<String>,
    pub(super) established: f64,
}

impl Loader {
    pub(super) fn start_backends(&self) -> Result<Backends, String> {
        let mut command = Command::new(&self.program);
        command.arg("backend").stdin(Stdio::null());
        let mut child = Child::spawn(&mut command, self.core, self.log("backend"), true)?;
        let lines = lines_of(&mut child)?;
        let line = next_line(&lines, &child, "the backend's ports")?;
        let ports: Value = serde_json::from_str(&line).map_err(|e| format!("the backend printed {line:?}: {e}"))?;
        let address = |port: &Value| {
            let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
            port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .ok_or(format!("a port is missing in {line}"))
        };
        let mut named = Vec::new();
        for entry in ports["named"].as_array().into_iter().flatten() {
            named.push(Named {
                name: entry["name"].as_str().unwrap_or_default().to_owned(),
                address: address(&entry["port"])?,
            });
        }
        let first = named.first().ok_or(format!("no names in {line}"))?;
        let long = address(&ports["long"])?;
        let [iperf] = free_addresses()?;
        let (udp, udp_child) = self.start_udp_echo()?;
        let services = Services {
            http: address(&ports["http"])?,
            echo: address(&ports["echo"])?,
            short: address(&ports["short"])?,
            iperf,
            udp,
            tls: first.address,
            routed: long,
            plain: long,
        };
        Ok(Backends {
            services,
            named,
            _children: [child, udp_child],
        })
    }

    fn start_udp_echo(&self) -> Result<(SocketAddr, Child), String> {
        let mut command = Command::new(&self.program);
        command.arg("udp-echo").stdin(Stdio::null());
        let mut child = Child::spawn(&mut command, self.core, self.log("udp-echo"), true)?;
        let lines = lines_of(&mut child)?;
        let line = next_line(&lines, &child, "the port of the UDP backend")?;
        let ports: Value = serde_json::from_str(&line).map_err(|e| format!("the UDP backend printed {line:?}: {e}"))?;
        let port = ports["udp"].as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| format!("no port udp in {line}"))?;
        Ok((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), child))
    }

    /// Datagrams there and back over 64 sockets, in trains of `train`.
    pub(super) fn udp(&self, target: SocketAddr, bytes: u32, train: u32, seconds: u32) -> Result<UdpSeen, String> {
        let mut command = Command::new(&self.program);
        let [target, bytes, train, duration] = [
            target.to_string(),
            bytes.to_string(),
            train.to_string(),
            seconds.to_string(),
        ];
        command.args(["udp", "--sockets", "64", "--target", &target]);
        command.args(["--bytes", &bytes, "--train", &train, "--seconds", &duration]);
        parse_udp(&self.output(&mut command, "udp", seconds)?)
    }

    /// Keep-alive requests over `connections` connections.
    pub(super) fn wrk(&self, target: SocketAddr, connections: u32, seconds: u32) -> Result<Wrk, String> {
        let mut command = installed("wrk")?;
        command.args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
            "--latency",
        ]);
        command.arg(format!("http://{target}/"));
        parse_wrk(&self.output(&mut command, "wrk", seconds)?)
    }

    /// Four streams; `down` means from the backend to the client. The server takes one client and ends.
    pub(super) fn iperf(
        &self,
        target: SocketAddr,
        backend: SocketAddr,
        down: bool,
        seconds: u32,
    ) -> Result<Iperf, String> {
        let mut serve = installed("iperf3")?;
        serve.args([
            "-s",
            "-1",
            "--forceflush",
            "-B",
            "127.0.0.1",
            "-p",
            &backend.port().to_string(),
        ]);
        serve.stdin(Stdio::null());
        let mut server = Child::spawn(&mut serve, self.core, self.log("iperf3-server"), true)?;
        let lines = lines_of(&mut server)?;
        while !next_line(&lines, &server, "iperf3's server to listen")?.contains("Server listening") {}

        let mut command = installed("iperf3")?;
        command.args(["-c", "127.0.0.1", "-P", "4", "-J"]);
        command.args(["-p", &target.port().to_string(), "-t", &seconds.to_string()]);
        if down {
            command.arg("-R");
        }
        parse_iperf(&self.output(&mut command, "iperf3", seconds)?)
    }

    pub(super) fn short(&self, target: SocketAddr, count: u32) -> Result<Short, String> {
        self.connections(target, count, None)
    }

    /// Short connections with hellos that ask for so many names in turn.
    pub(super) fn tls(&self, target: SocketAddr, count: u32, names: usize) -> Result<Short, String> {
        self.connections(target, count, Some(names))
    }

    fn connections(&self, target: SocketAddr, count: u32, names: Option<usize>) -> Result<Short, String> {
        let mut command = Command::new(&self.program);
        command.args([
            "short",
            "--concurrency",
            "64",
            "--count",
            &count.to_string(),
            "--target",
            &target.to_string(),
        ]);
        if let Some(names) = names {
            command.args(["--names", &names.to_string()]);
        }
        parse_short(&self.output(&mut command, "short", 30)?)
    }

    /// Opens 64 connections that begin with a hello; `requests` in all follow when told to.
    pub(super) fn long(&self, target: SocketAddr, requests: u32) -> Result<Long, String> {
        let mut command = Command::new(&self.program);
        let [target, count] = [target.to_string(), requests.to_string()];
        command.args(["long", "--connections", "64", "--target", &target, "--count", &count]);
        command.stdin(Stdio::piped());
        let mut child = Child::spawn(&mut command, self.core, self.log("long"), true)?;
        let lines = lines_of(&mut child)?;
        count_after(&next_line(&lines, &child, "hellos to be answered")?, "established")?;
        Ok(Long { child, lines })
    }

    /// Echoes 4 × 16 MiB: every buffer of a ring of 1,024 × 16 KiB is used several times.
    pub(super) fn warm(&self, target: SocketAddr) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args([
            "warm",
            "--connections",
            "4",
            "--megabytes",
            "16",
            "--target",
            &target.to_string(),
        ]);
        self.output(&mut command, "warm", 30).map(|_| ())
    }

    pub(super) fn idle(&self, target: SocketAddr, connections: u32) -> Result<Idle, String> {
        let mut command = Command::new(&self.program);
        command.args([
            "idle",
            "--connections",
            &connections.to_string(),
            "--target",
            &target.to_string(),
        ]);
        command.stdin(Stdio::piped());
        let mut child = Child::spawn(&mut command, self.core, self.log("idle"), true)?;
        let lines = lines_of(&mut child)?;
        let established = count_after(&next_line(&lines, &child, "idle connections to stand")?, "established")?;
        Ok(Idle {
            child,
            lines,
            established,
        })
    }

    /// Runs to the end, `seconds` of its own and [`PATIENCE`] at most.
    fn output(&self, command: &mut Command, name: &str, seconds: u32) -> Result<String, String> {
        let mut child = Child::spawn(command.stdin(Stdio::null()), self.core, self.log(name), true)?;
        let stdout = child
            .process()
            .stdout
            .take()
            .ok_or("stdout was piped but is not there")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // The receiver is gone when the program took too long.
            let _ = sender.send(std::io::read_to_string(stdout));
        });
        let limit = Duration::from_secs(u64::from(seconds)) + PATIENCE;
        let text = receiver
            .recv_timeout(limit)
            .map_err(|_| format!("{name} was not done after {limit:?}"))?;
        let text = text.map_err(|e| format!("output of {name}: {e}"))?;
        let status = child.wait()?;
        if status.success() {
            return Ok(text);
        }
        // iperf3 -J reports its errors inside the JSON.
        let said = iperf_error(&text).unwrap_or_else(|| child.last_words());
        Err(format!("{name} failed ({status}): {said}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        Path::new(&self.directory).join(format!("{name}.log"))
    }
}

impl Long {
    /// All requests, once. The connections stand until this is dropped.
    pub(super) fn go(&mut self) -> Result<LongSeen, String> {
        tell(&mut self.child, "go")?;
        parse_long(&next_line(&self.lines, &self.child, "requests to be answered")?)
    }
}

impl Idle {
    /// How many of them still echo.
    pub(super) fn alive(&mut self) -> Result<f64, String> {
        tell(&mut self.child, "check")?;
        count_after(
            &next_line(&self.lines, &self.child, "idle connections to answer")?,
            "alive",
        )
    }
}

fn installed(name: &str) -> Result<Command, String> {
    tools::find(name)
        .map(Command::new)
        .ok_or_else(|| format!("{name} is not installed"))
}

/// A line to the program's stdin.
fn tell(child: &mut Child, word: &str) -> Result<(), String> {
    let stdin = child
        .process()
        .stdin
        .as_mut()
        .ok_or("stdin was piped but is not there")?;
    writeln!(stdin, "{word}").map_err(|e| format!("the load does not listen to {word:?}: {e}"))
}

fn lines_of(child: &mut Child) -> Result<Receiver<String>, String> {
    let stdout: ChildStdout = child
        .process()
        .stdout
        .take()
        .ok_or("stdout was piped but is not there")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Goes on reading to the end even if nobody wants more, so that the program never blocks on a full pipe.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    Ok(receiver)
}

fn next_line(lines: &Receiver<String>, child: &Child, awaited: &str) -> Result<String, String> {
    lines
        .recv_timeout(PATIENCE)
        .map_err(|_| format!("waited in vain for {awaited}: {}", child.last_words()))
}

fn count_after(line: &str, word: &str) -> Result<f64, String> {
    line.strip_prefix(word)
        .and_then(|n| n.trim().parse().ok())
        .ok_or_else(|| format!("expected `{word} N`, got {line:?}"))
}

fn parse_wrk(text: &str) -> Result<Wrk, String> {
    let unexpected = |what: &str| format!("wrk's output has no {what}:\n{text}");
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let latency = |name: &str| after(name).and_then(|value| microseconds(value.trim()));
    let socket_errors: f64 = after("Socket errors:")
        .map(|list| {
            list.split(',')
                .filter_map(|e| e.split_whitespace().last()?.parse::<f64>().ok())
                .sum()
        })
        .unwrap_or(0.0);
    let bad_answers = after("Non-2xx or 3xx responses:")
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0.0);
    Ok(Wrk {
        requests: requests.ok_or_else(|| unexpected("number of requests"))?,
        per_second: after("Requests/sec:")
            .and_then(|n| n.trim().parse().ok())
            .ok_or_else(|| unexpected("rate"))?,
        p50_us: latency("50%").ok_or_else(|| unexpected("p50"))?,
        p99_us: latency("99%").ok_or_else(|| unexpected("p99"))?,
        errors: socket_errors + bad_answers,
    })
}

/// `306.00us`, `1.25ms`, `2.00s`, `1.00m`.
fn microseconds(text: &str) -> Option<f64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|n| n * factor)
}

fn iperf_error(text: &str) -> Option<String> {
    serde_json::from_str::<Value>(text).ok()?["error"]
        .as_str()
        .map(str::to_owned)
}

fn parse_iperf(text: &str) -> Result<Iperf, String> {
    if let Some(error) = iperf_error(text) {
        return Err(format!("iperf3: {error}"));
    }
    let report: Value = serde_json::from_str(text).map_err(|e| format!("iperf3's output is not JSON: {e}"))?;
    let received = &report["end"]["sum_received"];
    let number = |name: &str| {
        let value = received[name].as_f64().filter(|n| *n > 0.0);
        value.ok_or_else(|| format!("iperf3 reports no end.sum_received.{name}"))
    };
    Ok(Iperf {
        bytes: number("bytes")?,
        bits_per_second: number("bits_per_second")?,
    })
}

fn parse_udp(line: &str) -> Result<UdpSeen, String> {
    let report: Value = serde_json::from_str(line).map_err(|e| format!("the udp load printed {line:?}: {e}"))?;
    let number = |name: &str| {
        let value = report[name].as_f64();
        value.ok_or_else(|| format!("the udp load did not report {name}"))
    };
    Ok(UdpSeen {
        datagrams: number("datagrams")?,
        lost: number("lost")?,
        stalls: number("stalls")?,
        seconds: number("seconds")?,
        p50_us: number("p50_us")?,
        p99_us: number("p99_us")?,
    })
}

fn parse_short(line: &str) -> Result<Short, String> {
    let report: Value = serde_json::from_str(line).map_err(|e| format!("the short load printed {line:?}: {e}"))?;
    let number = |name: &str| {
        report[name]
            .as_f64()
            .ok_or_else(|| format!("the short load did not report {name}"))
    };
    Ok(Short {
        connections: number("connections")?,
        errors: number("errors")?,
        first_error: report["first_error"].as_str().unwrap_or_default().to_owned(),
        seconds: number("seconds")?,
        p50_us: number("p50_us")?,
        p99_us: number("p99_us")?,
    })
}

fn parse_long(line: &str) -> Result<LongSeen, String> {
    let report: Value = serde_json::from_str(line).map_err(|e| format!("the long load printed {line:?}: {e}"))?;
    let number = |name: &str| {
        report[name]
            .as_f64()
            .ok_or_else(|| format!("the long load did not report {name}"))
    };
    Ok(LongSeen {
        round_trips: number("round_trips")?,
        seconds: number("seconds")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from wrk 4.1.0; the line of errors is from another run.
    const WRK: &str = "\
Running 2s test @ http://127.0.0.1:44349/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   229.03us   37.76us 565.00us   72.72%
    Req/Sec   188.73k     6.73k  204.34k    70.00%
  Latency Distribution
     50%  232.00us
     75%  255.00us
     90%  273.00us
     99%    1.06ms
  375004 requests in 2.00s, 36.84MB read
  Socket errors: connect 0, read 3, write 1, timeout 2
  Non-2xx or 3xx responses: 5
Requests/sec: 187436.12
Transfer/sec:     18.41MB
";

    #[test]
    fn wrk_is_understood_with_its_errors() {
        let expected = Wrk {
            requests: 375_004.0,
            per_second: 187_436.12,
            p50_us: 232.0,
            p99_us: 1060.0,
            errors: 11.0,
        };
        assert_eq!(parse_wrk(WRK), Ok(expected));
        assert!(parse_wrk("unable to connect to 127.0.0.1:1 Connection refused").is_err());
    }

    #[test]
    fn short_connections_are_understood() {
        let line = r#"{"connections":99,"errors":1,"seconds":0.5,"p50_us":17.5,"p99_us":25.1,"first_error":"refused"}"#;
        let seen = parse_short(line).expect("all fields are there");
        assert_eq!(
            (seen.connections, seen.errors, seen.first_error.as_str()),
            (99.0, 1.0, "refused")
        );
        assert!(parse_short(r#"{"connections":99}"#).is_err_and(|e| e.contains("errors")));
        assert_eq!(count_after("established 4000", "established"), Ok(4000.0));
        assert!(count_after("alive 4000", "established").is_err());
    }

    #[test]
    fn long_connections_are_understood() {
        let line = r#"{"round_trips":20000,"seconds":0.25,"p50_us":232.1,"p99_us":471.0}"#;
        let expected = LongSeen {
            round_trips: 20_000.0,
            seconds: 0.25,
        };
        assert_eq!(parse_long(line), Ok(expected));
        assert!(parse_long(r#"{"seconds":0.25}"#).is_err_and(|e| e.contains("round_trips")));
    }

    #[test]
    fn iperf_counts_what_was_received() {
        let text = r#"{"end":{"sum_sent":{"bytes":9},"sum_received":{"bytes":4000,"bits_per_second":1.5e9}}}"#;
        assert_eq!(
            parse_iperf(text),
            Ok(Iperf {
                bytes: 4000.0,
                bits_per_second: 1.5e9
            })
        );
        let refused = r#"{"end":{},"error":"unable to connect to server: Connection refused"}"#;
        assert_eq!(
            parse_iperf(refused),
            Err("iperf3: unable to connect to server: Connection refused".to_owned())
        );
        assert!(parse_iperf(r#"{"end":{"sum_received":{"bytes":0}}}"#).is_err());
    }
}
