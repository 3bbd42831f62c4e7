//! A DNS server for tests: answers A, AAAA and SRV questions over UDP on one port of 127.0.0.1, as it is told.
//!
//! Writes messages by hand (RFC 1035), so that what the product reads is not what its own library wrote.

use crate::address::{ANY_V4, Address};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

const A: u16 = 1;
const SOA: u16 = 6;
const SRV: u16 = 33;

/// How long every answer holds, seconds; also the ones that there is nothing.
const TTL: u32 = 1;

/// What a name is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A records; to a question for others that there are none.
    Addresses(Vec<Ipv4Addr>),
    /// SRV records; to a question for others that there are none.
    Services(Vec<Service>),
    /// NXDOMAIN; also for names that nobody told.
    Nothing,
    /// SERVFAIL.
    Failure,
    /// Bytes that are no message.
    Garbage,
    /// The answer to another question.
    Wrong,
    /// No answer.
    Silence,
    /// One address, after a while.
    Late(Duration, Ipv4Addr),
}

/// One SRV record.
#[derive(Clone, Debug)]
pub struct Service {
    /// Lower ones come first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Whose addresses it has.
    pub target: &'static str,
}

type Answers = Arc<Mutex<HashMap<String, Answer>>>;

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens, as the configuration wants it.
    pub address: SocketAddr,
    answers: Answers,
    asked: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// A server that knows no name.
    pub fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let (answers, asked) = (Answers::default(), Arc::new(AtomicU64::new(0)));
        let (known, count) = (answers.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let Address::Inet(any) = ANY_V4 else {
                    unreachable!("ANY_V4 is an address")
                };
                let socket = UdpSocket::bind(any).await.expect("the kernel has a free port");
                tell.send(socket.local_addr().expect("it is bound"))
                    .expect("the starter waits");
                tokio::select! {
                    _ = stopped => {}
                    () = serve(Arc::new(socket), known, count) => {}
                }
            });
        });
        Self {
            address: told.recv().expect("the server starts"),
            answers,
            asked,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What this name is answered with from now on.
    pub fn set(&self, name: &str, answer: Answer) {
        let mut answers = self.answers.lock().expect("nobody panics with it");
        answers.insert(name.to_owned(), answer);
    }

    /// What every name that it knows is answered with from now on.
    pub fn set_all(&self, answer: &Answer) {
        let mut answers = self.answers.lock().expect("nobody panics with it");
        answers.values_mut().for_each(|known| *known = answer.clone());
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread has been printed; a second one while dropping would abort.
            let _ = thread.join();
        }
    }
}

async fn serve(socket: Arc<UdpSocket>, answers: Answers, asked: Arc<AtomicU64>) {
    let mut buffer = vec![0; 4096];
    loop {
        // An ICMP error of an asker that is gone is told here too.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        asked.fetch_add(1, SeqCst);
        let Some(question) = Question::read(&buffer[..length]) else {
            continue;
        };
        let known = answers
            .lock()
            .expect("nobody panics with it")
            .get(&question.name)
            .cloned();
        let answer = known.unwrap_or(Answer::Nothing);
        if let Answer::Late(delay, _) = &answer {
            let (delay, message, socket) = (*delay, question.answer(&answer), socket.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = socket.send_to(&message, client).await;
            });
        } else if !matches!(answer, Answer::Silence) {
            // An asker that is gone needs no answer.
            let _ = socket.send_to(&question.answer(&answer), client).await;
        }
    }
}

struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// The question section as it came.
    section: Vec<u8>,
}

impl Question {
    /// `None` for what is no question.
    fn read(message: &[u8]) -> Option<Self> {
        let (mut labels, mut at) = (Vec::new(), 12);
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        Some(Self {
            id: [message[0], message[1]],
            name: labels.join("."),
            kind: u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]),
            section: message.get(12..at + 4)?.to_vec(),
        })
    }

    fn answer(&self, answer: &Answer) -> Vec<u8> {
        let addresses = |list: &[Ipv4Addr]| -> Vec<Vec<u8>> {
            let of_kind = if self.kind == A { list } else { &[] };
            of_kind.iter().map(|address| address.octets().to_vec()).collect()
        };
        match answer {
            Answer::Addresses(list) => self.message(0, &addresses(list)),
            Answer::Late(_, address) => self.message(0, &addresses(&[*address])),
            Answer::Services(list) if self.kind == SRV => {
                let records: Vec<_> = list.iter().map(Service::content).collect();
                self.message(0, &records)
            }
            Answer::Services(_) => self.message(0, &[]),
            Answer::Nothing | Answer::Silence => self.message(3, &[]),
            Answer::Failure => self.message(2, &[]),
            Answer::Garbage => [&self.id[..], &[0xFF; 20]].concat(),
            Answer::Wrong => {
                let other = Self {
                    id: self.id,
                    name: "other.test".to_owned(),
                    kind: A,
                    section: [&written("other.test")[..], &A.to_be_bytes(), &[0, 1]].concat(),
                };
                other.message(0, &[vec![127, 0, 0, 99]])
            }
        }
    }

    /// A response with this code and records of the kind that was asked for; without any, with the SOA record that
    /// tells for how long there are none (RFC 2308).
    fn message(&self, code: u8, contents: &[Vec<u8>]) -> Vec<u8> {
        let mut message = self.id.to_vec();
        // Response, recursion desired; recursion available and the code.
        message.extend([0x81, 0x80 | code]);
        let authority = u16::from(contents.is_empty() && code != 2);
        for count in [1, contents.len() as u16, authority, 0] {
            message.extend(count.to_be_bytes());
        }
        message.extend(&self.section);
        for content in contents {
            push_record(&mut message, &self.name, self.kind, content);
        }
        if authority > 0 {
            let numbers = [1, 3600, 600, 86_400, TTL].map(u32::to_be_bytes).concat();
            let content = [written("ns.test"), written("admin.test"), numbers].concat();
            push_record(&mut message, "test", SOA, &content);
        }
        message
    }
}

impl Service {
    fn content(&self) -> Vec<u8> {
        let numbers = [self.priority, self.weight, self.port].map(u16::to_be_bytes).concat();
        [numbers, written(self.target)].concat()
    }
}

fn push_record(message: &mut Vec<u8>, name: &str, kind: u16, content: &[u8]) {
    message.extend(written(name));
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend(TTL.to_be_bytes());
    message.extend((content.len() as u16).to_be_bytes());
    message.extend(content);
}

/// A name as labels with their lengths (RFC 1035, section 3.1).
fn written(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The question of RFC 1035's format, written by hand: id 1, one question, a.test, type A, class IN.
    const QUESTION: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";

    #[test]
    fn an_address_is_answered_as_the_standard_has_it() {
        let question = Question::read(QUESTION).expect("a question");
        assert_eq!((&*question.name, question.kind), ("a.test", A));
        let mut expected = b"\0\x01\x81\x80\0\x01\0\x01\0\0\0\0\x01a\x04test\0\0\x01\0\x01".to_vec();
        expected.extend(b"\x01a\x04test\0\0\x01\0\x01\0\0\0\x01\0\x04\x7f\0\0\x02");
        assert_eq!(
            question.answer(&Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)])),
            expected
        );
    }

    #[test]
    fn what_is_cut_short_is_no_question() {
        for end in 0..QUESTION.len() {
            assert!(Question::read(&QUESTION[..end]).is_none(), "{end}");
        }
    }
}
