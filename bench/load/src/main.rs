//! Load generator and backend of `cargo xtask bench`: one process, one thread, one role, chosen by the first argument.
//!
//! It must never judge: it counts, measures and prints one line of JSON or of plain words per event on stdout, and the
//! driver in `crates/xtask/src/bench` draws the conclusions. Roles: [`backend`], [`short`], [`long`], [`idle`], [`udp`],
//! [`warm`].

mod backend;
mod exchange;
mod hello;
mod idle;
mod long;
mod short;
mod udp;
mod warm;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;

const USAGE: &str = "\
usage: ringway-bench-load ROLE [--NAME VALUE ...]
  backend                                          answers HTTP, echo, short and TLS connections; prints the ports it took
  short --target ADDR [--concurrency 64] [--count 10000] [--names 0]
        connect, one request, one response, close; with --names the request is a ClientHello, for so many names in turn
  long  --target ADDR [--connections 64] [--count 20000]    sends a ClientHello on each; reads `go` from stdin, then HTTP
  idle  --target ADDR [--connections 4000]         opens and holds; reads `check` and `close` from stdin
  udp-echo                                         sends datagrams back; prints the port it took
  udp   --target ADDR [--sockets 64] [--seconds 4] [--bytes 64] [--train 1] [--rate 0]
        ping-pong of datagrams or of trains; with --rate so many datagrams in a second, whatever comes back
  warm  --target ADDR [--connections 4] [--megabytes 16]    echoes bytes through the target and compares them";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringway-bench-load: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let (role, rest) = arguments.split_first().ok_or(USAGE)?;
    let flags = Flags::parse(rest)?;
    match role.as_str() {
        "backend" => backend::run(),
        "short" => short::run(
            flags.target()?,
            flags.number("concurrency", 64)?,
            flags.number("count", 10_000)?,
            flags.number("names", 0)?,
        ),
        "long" => long::run(
            flags.target()?,
            flags.number("connections", 64)?,
            flags.number("count", 20_000)?,
        ),
        "idle" => idle::run(flags.target()?, flags.number("connections", 4_000)?),
        "udp-echo" => udp::echo(),
        "udp" => udp::run(
            flags.target()?,
            &udp::Load {
                sockets: flags.number("sockets", 64)?,
                seconds: flags.number("seconds", 4)? as u64,
                bytes: flags.number("bytes", 64)?,
                train: flags.number("train", 1)?,
                rate: flags.number("rate", 0)?,
            },
        ),
        "warm" => warm::run(
            flags.target()?,
            flags.number("connections", 4)?,
            flags.number("megabytes", 16)?,
        ),
        other => Err(format!("there is no role {other:?}\n{USAGE}")),
    }
}

/// `--name value` pairs.
struct Flags(HashMap<String, String>);

impl Flags {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut flags = HashMap::new();
        for pair in arguments.chunks(2) {
            match pair {
                [name, value] if name.starts_with("--") => flags.insert(name[2..].to_owned(), value.clone()),
                _ => return Err(format!("{:?} is not a --NAME VALUE pair\n{USAGE}", pair.join(" "))),
            };
        }
        Ok(Self(flags))
    }

    fn target(&self) -> Result<SocketAddr, String> {
        let text = self
            .0
            .get("target")
            .ok_or("--target ADDR is missing, for example --target 127.0.0.1:8000")?;
        text.parse()
            .map_err(|_| format!("--target {text:?} is not an address like 127.0.0.1:8000"))
    }

    /// A whole number of at least 1.
    fn number(&self, name: &str, default: usize) -> Result<usize, String> {
        let Some(text) = self.0.get(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(|| format!("--{name} {text:?} is not a number of 1 or more"))
    }
}
