//! A DNS server for tests: answers over UDP and TCP on one port of 127.0.0.1, as its script says.
//!
//! Writes messages by hand (RFC 1035), so that what the product reads is not what its own library wrote. Lives in a
//! thread of its own, because the tests' runtime has one thread as the product's has.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

pub(super) const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;

/// What a question is answered with.
#[derive(Clone)]
pub(super) enum Script {
    Answer(Reply),
    /// No answer at all.
    Silence,
    /// Bytes that are no message behind the right id.
    Garbage,
    /// After a while.
    Late(Duration, Reply),
    /// Over UDP only that it does not fit; over TCP the answer.
    TooLong(Reply),
}

/// The sections of a message.
#[derive(Clone, Default)]
pub(super) struct Reply {
    pub(super) code: u8,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
    pub(super) additional: Vec<Record>,
}

#[derive(Clone)]
pub(super) struct Record {
    name: String,
    ttl: u32,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Address(IpAddr),
    Alias(String),
    Service {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
    Authority {
        negative_ttl: u32,
    },
}

pub(super) fn address(name: &str, ttl: u32, address: &str) -> Record {
    record(name, ttl, Content::Address(address.parse().unwrap()))
}

pub(super) fn alias(name: &str, ttl: u32, target: &str) -> Record {
    record(name, ttl, Content::Alias(target.to_owned()))
}

pub(super) fn service(name: &str, ttl: u32, (priority, weight, port): (u16, u16, u16), target: &str) -> Record {
    let target = target.to_owned();
    record(
        name,
        ttl,
        Content::Service {
            priority,
            weight,
            port,
            target,
        },
    )
}

fn record(name: &str, ttl: u32, content: Content) -> Record {
    Record {
        name: name.to_owned(),
        ttl,
        content,
    }
}

pub(super) fn answers(answers: Vec<Record>) -> Reply {
    Reply {
        answers,
        ..Reply::default()
    }
}

/// Code 0 with a SOA record: no such records. Code 3: NXDOMAIN.
pub(super) fn nothing(code: u8, negative_ttl: u32) -> Script {
    let authority = vec![record("test", negative_ttl, Content::Authority { negative_ttl })];
    Script::Answer(Reply {
        code,
        authority,
        ..Reply::default()
    })
}

pub(super) fn code(code: u8) -> Script {
    Script::Answer(Reply {
        code,
        ..Reply::default()
    })
}

/// Addresses of both families for a name, each with this TTL.
pub(super) fn addresses(server: &FakeServer, name: &str, ttl: u32, list: &[&str]) {
    for (kind, is_v4) in [(A, true), (AAAA, false)] {
        let of_kind = list
            .iter()
            .filter(|text| text.parse::<IpAddr>().unwrap().is_ipv4() == is_v4);
        let records: Vec<Record> = of_kind.map(|text| address(name, ttl, text)).collect();
        let script = if records.is_empty() {
            nothing(0, ttl)
        } else {
            Script::Answer(answers(records))
        };
        server.set(name, kind, script);
    }
}

#[derive(Default)]
struct Scripts {
    by_question: HashMap<(String, u16), Script>,
    /// Questions that came, over UDP and TCP.
    asked: HashMap<(String, u16), usize>,
    asked_over_tcp: usize,
}

pub(super) struct FakeServer {
    address: SocketAddr,
    scripts: Arc<Mutex<Scripts>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeServer {
    /// What no script tells is NXDOMAIN.
    pub(super) fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let scripts = Arc::new(Mutex::new(Scripts::default()));
        let shared = Arc::clone(&scripts);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (udp, tcp) = bind().await;
                tell.send(udp.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve_udp(udp, Arc::clone(&shared)) => {}
                    () = serve_tcp(tcp, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            scripts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set(&self, name: &str, kind: u16, script: Script) {
        let question = (name.to_owned(), kind);
        self.scripts.lock().unwrap().by_question.insert(question, script);
    }

    pub(super) fn asked(&self, name: &str, kind: u16) -> usize {
        let scripts = self.scripts.lock().unwrap();
        scripts.asked.get(&(name.to_owned(), kind)).copied().unwrap_or(0)
    }

    pub(super) fn asked_in_all(&self) -> usize {
        self.scripts.lock().unwrap().asked.values().sum()
    }

    pub(super) fn asked_over_tcp(&self) -> usize {
        self.scripts.lock().unwrap().asked_over_tcp
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Both on the same port, which the kernel chooses.
async fn bind() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, scripts: Arc<Mutex<Scripts>>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Question::read(&buffer[..length]);
        let (delay, message) = match scripted(&scripts, &question, false) {
            Script::Answer(reply) => (None, question.message(&reply, false)),
            Script::Late(delay, reply) => (Some(delay), question.message(&reply, false)),
            Script::TooLong(_) => (None, question.message(&Reply::default(), true)),
            Script::Garbage => (None, [&question.id[..], &[0xff; 20]].concat()),
            Script::Silence => continue,
        };
        match delay {
            None => drop(socket.send_to(&message, client).await),
            Some(delay) => {
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = socket.send_to(&message, client).await;
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, scripts: Arc<Mutex<Scripts>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let scripts = Arc::clone(&scripts);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await.unwrap();
                let question = Question::read(&bytes);
                if let Script::TooLong(reply) | Script::Answer(reply) = scripted(&scripts, &question, true) {
                    let message = question.message(&reply, false);
                    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
                    stream.write_all(&message).await.unwrap();
                }
            }
        });
    }
}

fn scripted(scripts: &Mutex<Scripts>, question: &Question, over_tcp: bool) -> Script {
    let mut scripts = scripts.lock().unwrap();
    let key = (question.name.clone(), question.kind);
    *scripts.asked.entry(key.clone()).or_default() += 1;
    scripts.asked_over_tcp += usize::from(over_tcp);
    scripts.by_question.get(&key).cloned().unwrap_or_else(|| nothing(3, 60))
}

struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// The question section as it came.
    section: Vec<u8>,
}

impl Question {
    fn read(message: &[u8]) -> Self {
        let mut labels = Vec::new();
        let mut at = 12;
        while message[at] != 0 {
            let length = usize::from(message[at]);
            labels.push(String::from_utf8(message[at + 1..at + 1 + length].to_vec()).unwrap());
            at += 1 + length;
        }
        Self {
            id: [message[0], message[1]],
            name: labels.join("."),
            kind: u16::from_be_bytes([message[at + 1], message[at + 2]]),
            section: message[12..at + 5].to_vec(),
        }
    }

    fn message(&self, reply: &Reply, truncated: bool) -> Vec<u8> {
        let mut message = self.id.to_vec();
        // Response, recursion desired; recursion available and the code.
        message.push(0x81 | (u8::from(truncated) << 1));
        message.push(0x80 | reply.code);
        for count in [1, reply.answers.len(), reply.authority.len(), reply.additional.len()] {
            message.extend(u16::try_from(count).unwrap().to_be_bytes());
        }
        message.extend(&self.section);
        for record in [&reply.answers, &reply.authority, &reply.additional]
            .into_iter()
            .flatten()
        {
            record.write(&mut message);
        }
        message
    }
}

impl Record {
    fn write(&self, message: &mut Vec<u8>) {
        let (kind, content) = match &self.content {
            Content::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Content::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Content::Alias(target) => (CNAME, written(target)),
            Content::Service {
                priority,
                weight,
                port,
                target,
            } => {
                let numbers: Vec<u8> = [priority, weight, port]
                    .iter()
                    .flat_map(|number| number.to_be_bytes())
                    .collect();
                (SRV, [numbers, written(target)].concat())
            }
            Content::Authority { negative_ttl } => {
                let numbers: Vec<u8> = [1, 3600, 600, 86_400, *negative_ttl]
                    .iter()
                    .flat_map(|number: &u32| number.to_be_bytes())
                    .collect();
                (SOA, [written("ns.test"), written("admin.test"), numbers].concat())
            }
        };
        message.extend(written(&self.name));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(self.ttl.to_be_bytes());
        message.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        message.extend(content);
    }
}

fn written(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
