//! One record, one line: formatting by hand into a buffer that is used again and again.
//!
//! Everything that is known at the start (keys, names, the words of reasons) is escaped then; a line copies it. Nothing
//! is allocated per line. Of what a client sends only the name in its TLS hello appears, which is escaped all the same.

use super::Names;
use super::escape::{push_quoted, push_word};
use super::stamp::Stamp;
use super::words;
use ringway_core::model::LogFormat;
use ringway_core::reason::EndReason;
use ringway_proxy::observer::SessionRecord;
use ringway_runtime::Address;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Stands for a value that there is none of, as `null` does in JSON.
pub(super) const NOTHING_IN_TEXT: &str = "-";

/// Makes lines.
#[derive(Debug)]
pub(super) struct Lines {
    format: LogFormat,
    stamp: Stamp,
    /// Before the time.
    start: &'static str,
    nothing: &'static str,
    /// From the time to the client, by listener; the last one is for a listener without a name.
    listeners: Vec<Box<[u8]>>,
    /// From the client to the backend, by pool; the last one is for a pool without a name.
    pools: Vec<Box<[u8]>>,
    tries: Box<[u8]>,
    connect: Box<[u8]>,
    bytes_in: Box<[u8]>,
    bytes_out: Box<[u8]>,
    datagrams_in: Box<[u8]>,
    datagrams_out: Box<[u8]>,
    duration: Box<[u8]>,
    /// What follows the duration, by reason.
    ends: Vec<Box<[u8]>>,
}

impl Lines {
    pub(super) fn new(format: LogFormat, names: &Names) -> Self {
        let (start, nothing) = match format {
            LogFormat::Json => ("{\"time\":\"", "null"),
            LogFormat::Text => ("", NOTHING_IN_TEXT),
        };
        let key = |key| {
            let mut piece = Vec::new();
            push_key(format, &mut piece, key);
            piece.into_boxed_slice()
        };
        Self {
            format,
            stamp: Stamp::new(),
            start,
            nothing,
            listeners: with_unnamed(&names.listeners, |name| listener(format, nothing, name)),
            pools: with_unnamed(&names.pools, |name| pool(format, nothing, name)),
            tries: key("tries"),
            connect: key("connect_ms"),
            bytes_in: key("bytes_in"),
            bytes_out: key("bytes_out"),
            datagrams_in: key("datagrams_in"),
            datagrams_out: key("datagrams_out"),
            duration: key("duration_ms"),
            ends: EndReason::ALL.iter().map(|&reason| end(format, reason)).collect(),
        }
    }

    /// Appends the line of a session that ended at `millis`, milliseconds since 1970-01-01T00:00:00Z.
    pub(super) fn push(&mut self, line: &mut Vec<u8>, record: &SessionRecord, millis: u64) {
        line.extend_from_slice(self.start.as_bytes());
        line.extend_from_slice(self.stamp.at(millis));
        line.extend_from_slice(named(&self.listeners, record.listener));
        match &record.client {
            Some(client) => push_client(self.format, line, client),
            None => line.extend_from_slice(self.nothing.as_bytes()),
        }
        line.extend_from_slice(named(&self.pools, record.pool.map_or(usize::MAX, |pool| pool.0)));
        let label = record.backend.as_ref().map(|backend| &*backend.label);
        push_name(self.format, line, self.nothing, label);
        line.extend_from_slice(&self.tries);
        push_number(line, u64::from(record.tries));
        line.extend_from_slice(&self.connect);
        match record.connect_time {
            Some(time) => push_millis(line, time),
            None => line.extend_from_slice(self.nothing.as_bytes()),
        }
        line.extend_from_slice(&self.bytes_in);
        push_number(line, record.bytes_from_client);
        line.extend_from_slice(&self.bytes_out);
        push_number(line, record.bytes_from_backend);
        if let Some((from_client, from_backend)) = record.datagrams {
            line.extend_from_slice(&self.datagrams_in);
            push_number(line, from_client);
            line.extend_from_slice(&self.datagrams_out);
            push_number(line, from_backend);
        }
        line.extend_from_slice(&self.duration);
        push_millis(line, record.duration);
        line.extend_from_slice(&self.ends[record.reason.index()]);
        self.push_seldom(line, record);
        if self.format == LogFormat::Json {
            line.push(b'}');
        }
        line.push(b'\n');
    }

    /// What most sessions have none of.
    fn push_seldom(&self, line: &mut Vec<u8>, record: &SessionRecord) {
        let Some(seldom) = &record.seldom else { return };
        if let Some(proxy) = &seldom.proxy {
            push_key(self.format, line, "proxy");
            push_client(self.format, line, proxy);
        }
        for (key, value) in [("sni", &seldom.server_name), ("id", &seldom.id)] {
            if let Some(value) = value {
                push_pair(self.format, line, key, value);
            }
        }
    }
}

/// The piece at this position, or the last one.
fn named(pieces: &[Box<[u8]>], position: usize) -> &[u8] {
    &pieces[position.min(pieces.len() - 1)]
}

/// A piece for each name and, as the last one, that for none.
fn with_unnamed(names: &[Arc<str>], piece: impl Fn(Option<&str>) -> Vec<u8>) -> Vec<Box<[u8]>> {
    let names = names.iter().map(|name| Some(&**name)).chain([None]);
    names.map(|name| piece(name).into_boxed_slice()).collect()
}

fn listener(format: LogFormat, nothing: &str, name: Option<&str>) -> Vec<u8> {
    let mut piece = Vec::new();
    if format == LogFormat::Json {
        // Of the time.
        piece.push(b'"');
    }
    push_pair(format, &mut piece, "event", "session");
    push_key(format, &mut piece, "listener");
    push_name(format, &mut piece, nothing, name);
    push_key(format, &mut piece, "client");
    piece
}

fn pool(format: LogFormat, nothing: &str, name: Option<&str>) -> Vec<u8> {
    let mut piece = Vec::new();
    push_key(format, &mut piece, "pool");
    push_name(format, &mut piece, nothing, name);
    push_key(format, &mut piece, "backend");
    piece
}

fn end(format: LogFormat, reason: EndReason) -> Box<[u8]> {
    let mut piece = Vec::new();
    push_pair(format, &mut piece, "reason", reason.label());
    push_pair(format, &mut piece, "by", words::by(reason.blame()));
    push_pair(format, &mut piece, "text", words::text(reason));
    piece.into_boxed_slice()
}

fn push_name(format: LogFormat, line: &mut Vec<u8>, nothing: &str, name: Option<&str>) {
    match name {
        Some(name) => push_string(format, line, name),
        None => line.extend_from_slice(nothing.as_bytes()),
    }
}

fn push_pair(format: LogFormat, line: &mut Vec<u8>, key: &str, text: &str) {
    push_key(format, line, key);
    push_string(format, line, text);
}

fn push_key(format: LogFormat, line: &mut Vec<u8>, key: &str) {
    match format {
        LogFormat::Json => {
            line.extend_from_slice(b",\"");
            line.extend_from_slice(key.as_bytes());
            line.extend_from_slice(b"\":");
        }
        LogFormat::Text => {
            line.push(b' ');
            line.extend_from_slice(key.as_bytes());
            line.push(b'=');
        }
    }
}

fn push_string(format: LogFormat, line: &mut Vec<u8>, text: &str) {
    match format {
        LogFormat::Json => push_quoted(line, text),
        LogFormat::Text => push_word(line, text),
    }
}

/// Of a client on a UNIX socket only that it is one: the path it may have bound is its own choice.
fn push_client(format: LogFormat, line: &mut Vec<u8>, client: &Address) {
    if format == LogFormat::Json {
        line.push(b'"');
    }
    match client {
        Address::Inet(SocketAddr::V4(address)) => {
            let [a, b, c, d] = address.ip().octets();
            for (octet, after) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
                push_number(line, u64::from(octet));
                line.push(after);
            }
            push_number(line, u64::from(address.port()));
        }
        Address::Inet(SocketAddr::V6(address)) => {
            // Writing to a vector cannot fail.
            let _ = write!(line, "{address}");
        }
        Address::Unix(_) => line.extend_from_slice(b"unix"),
    }
    if format == LogFormat::Json {
        line.push(b'"');
    }
}

/// Milliseconds with three decimals; what is below a microsecond is cut off.
fn push_millis(line: &mut Vec<u8>, duration: Duration) {
    push_number(
        line,
        duration
            .as_secs()
            .saturating_mul(1000)
            .saturating_add(u64::from(duration.subsec_millis())),
    );
    let micros = duration.subsec_micros() % 1000;
    let digit = |value: u32| b'0' + (value % 10) as u8;
    line.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
}

fn push_number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; NUMBER_DIGITS_MAX];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// Of `u64::MAX`.
const NUMBER_DIGITS_MAX: usize = 20;

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
