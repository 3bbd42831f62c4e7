//! Bytes sent, bytes awaited.

use super::ProbeError;
use super::connection::Connection;
use super::limit::Limit;
use super::words;
use ringway_core::model::ProbeExchange;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;

/// Bytes of the answer that are looked at.
pub(super) const ANSWER_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Exchange {
    send: Arc<[u8]>,
    expect: Arc<[u8]>,
}

impl Exchange {
    pub(super) fn new(probe: &ProbeExchange) -> Self {
        Self {
            send: probe.send.clone(),
            expect: probe.expect.clone(),
        }
    }

    pub(super) async fn run(&self, connection: &mut dyn Connection, limit: &Limit) -> Result<String, ProbeError> {
        let mut answer = Answer::new(ANSWER_MAX);
        // The answer outlives the wait for it, so that what came too slowly can be told.
        let Ok(end) = timeout_at(limit.deadline(), self.converse(connection, &mut answer)).await else {
            return Err(ProbeError::Failed(if answer.bytes.is_empty() {
                format!("no answer {}", limit.words())
            } else {
                format!("{} {}", self.missing("the answer", &answer), limit.words())
            }));
        };
        match end? {
            End::Found => Ok(format!("expected answer {}", limit.elapsed())),
            End::Full => Err(ProbeError::Failed(
                self.missing("the first 16 KiB of the answer", &answer),
            )),
            End::Ended if answer.bytes.is_empty() => {
                Err(ProbeError::Failed("ended by the backend without an answer".to_owned()))
            }
            End::Ended => Err(ProbeError::Failed(self.missing("the answer", &answer))),
        }
    }

    fn missing(&self, what: &str, answer: &Answer) -> String {
        let (seen, expected) = (words::quoted(&answer.bytes), words::quoted(&self.expect));
        format!("{what}, {seen}, does not contain {expected}")
    }

    async fn converse(&self, connection: &mut dyn Connection, answer: &mut Answer) -> Result<End, ProbeError> {
        if !self.send.is_empty() {
            let sent = async {
                connection.write_all(&self.send).await?;
                connection.flush().await
            };
            sent.await
                .map_err(|error| words::fault(&error, " while it was asked"))?;
        }
        let mut chunk = [0; 4096];
        loop {
            let count = match connection.read(&mut chunk).await {
                Ok(0) => return Ok(End::Ended),
                Ok(count) => count,
                // TLS without its own end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(End::Ended),
                Err(error) => return Err(words::fault(&error, " instead of an answer")),
            };
            if answer.take(&chunk[..count], &self.expect) {
                return Ok(End::Found);
            }
            if answer.is_full() {
                return Ok(End::Full);
            }
        }
    }
}

enum End {
    Found,
    Full,
    Ended,
}

/// The beginning of what a backend says, up to a limit.
pub(super) struct Answer {
    bytes: Vec<u8>,
    max: usize,
}

impl Answer {
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() == self.max
    }

    /// Whether the answer with these bytes added contains the expected ones; of none any byte will do. Looks only at
    /// what is new, so that an answer that comes byte by byte costs no more than one that comes at once.
    pub(super) fn take(&mut self, bytes: &[u8], expected: &[u8]) -> bool {
        let before = self.bytes.len();
        let room = self.max - before;
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if expected.is_empty() {
            return !self.bytes.is_empty();
        }
        let from = before.saturating_sub(expected.len() - 1);
        self.bytes[from..]
            .windows(expected.len())
            .any(|window| window == expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_found_across_pieces() {
        for cut in 0..=b"say +PONG now".len() {
            let (first, second) = b"say +PONG now".split_at(cut);
            let mut answer = Answer::new(100);
            // Complete after "say +PONG", nine bytes.
            assert_eq!(answer.take(first, b"+PONG"), cut >= 9, "{cut}");
            if cut < 9 {
                assert!(answer.take(second, b"+PONG"), "{cut}");
            }
        }
    }

    #[test]
    fn nothing_counts_beyond_the_limit() {
        let mut answer = Answer::new(4);
        assert!(!answer.take(b"abcde", b"cde"));
        assert!(answer.is_full());
        assert!(!answer.take(b"cde", b"cde"));
        assert!(Answer::new(4).take(b"abcde", b"bcd"));
    }

    #[test]
    fn any_byte_will_do_if_none_is_expected() {
        assert!(!Answer::new(4).take(b"", b""));
        assert!(Answer::new(4).take(b"\0", b""));
    }
}
