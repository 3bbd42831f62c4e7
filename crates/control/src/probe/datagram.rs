//! A datagram sent, an answer awaited. Silence is no answer: without one nothing is known of the backend.

use super::ProbeError;
use super::limit::Limit;
use super::words;
use ringway_core::model::{Address, ProbeDatagram};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How often it is sent, at equal distances: a datagram may be lost.
const TIMES: u32 = 3;
/// Longer answers are cut; what is looked at stands at their beginning.
const ANSWER_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Datagram(ProbeDatagram);

impl Datagram {
    pub(super) fn new(probe: &ProbeDatagram) -> Self {
        Self(probe.clone())
    }

    /// `header` stands in front of each question.
    pub(super) async fn run(&self, address: &Address, header: &[u8], limit: &Limit) -> Result<String, ProbeError> {
        let question = [header, &self.0.send].concat();
        let Address::Inet(address) = address else {
            return Err(ProbeError::Failed("a UNIX socket takes no datagrams".to_owned()));
        };
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await.map_err(|error| words::fault(&error, ""))?;
        // Connected, so that answers of others are not taken and refusals are told.
        socket
            .connect(*address)
            .await
            .map_err(|error| words::fault(&error, ""))?;
        let mut wrong = None;
        let mut answer = [0; ANSWER_MAX];
        for time in 1..=TIMES {
            let sent = socket.send(&question).await;
            sent.map_err(|error| words::fault(&error, " while it was asked"))?;
            let until = limit.part(time, TIMES);
            while let Ok(received) = timeout_at(until, socket.recv(&mut answer)).await {
                let len = received.map_err(|error| words::fault(&error, " instead of an answer"))?;
                match self.judge(&answer[..len]) {
                    Ok(()) => return Ok(format!("answer {}", limit.elapsed())),
                    // It may be a late one to an earlier question; the next one may be right.
                    Err(why) => wrong = Some(why),
                }
            }
        }
        let why = wrong.unwrap_or_else(|| format!("no answer {}", limit.words()));
        Err(ProbeError::Failed(why))
    }

    fn judge(&self, answer: &[u8]) -> Result<(), String> {
        let ProbeDatagram { send, expect, is_dns } = &self.0;
        if *is_dns {
            return judge_dns(send, answer);
        }
        if answer.starts_with(expect) {
            return Ok(());
        }
        let (seen, expected) = (words::quoted(answer), words::quoted(expect));
        Err(format!("the answer, {seen}, does not begin with {expected}"))
    }
}

/// RFC 1035, section 4.1.1. A server that refuses or does not know the name lives.
fn judge_dns(question: &[u8], answer: &[u8]) -> Result<(), String> {
    const ANSWER: u8 = 0x80;
    const SERVER_FAILURE: u8 = 2;
    let (Some(header), Some(id)) = (answer.first_chunk::<12>(), question.get(..2)) else {
        return Err(format!("the answer, {}, is not one of DNS", words::quoted(answer)));
    };
    if header[..2] != *id || header[2] & ANSWER == 0 {
        return Err(format!("{} is not the answer to the question", words::quoted(answer)));
    }
    if header[3] & 0x0f == SERVER_FAILURE {
        return Err("DNS answer SERVFAIL".to_owned());
    }
    Ok(())
}

impl Limit {
    /// When the first `n` of so many equal parts of the time are over.
    fn part(&self, n: u32, parts: u32) -> Instant {
        let whole = self.deadline() - self.beginning();
        self.beginning() + whole * n / parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_dns_are_judged_by_their_header() {
        let question = b"\x52\x57\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
        let answer = |flags: [u8; 2]| {
            let mut answer = question.to_vec();
            answer[2..4].copy_from_slice(&flags);
            answer
        };
        // No error, a name that does not exist, a refusal.
        for flags in [[0x81, 0x80], [0x81, 0x83], [0x81, 0x05]] {
            assert_eq!(judge_dns(question, &answer(flags)), Ok(()), "{flags:?}");
        }
        let failed = Err("DNS answer SERVFAIL".to_owned());
        assert_eq!(judge_dns(question, &answer([0x81, 0x82])), failed);
        let own = judge_dns(question, question).expect_err("the question itself, sent back");
        assert!(own.contains("not the answer"), "{own}");
        let mut other = answer([0x81, 0x80]);
        other[0] = 0;
        judge_dns(question, &other).expect_err("another id");
        judge_dns(question, b"\x52\x57\x81").expect_err("cut off");
    }
}
