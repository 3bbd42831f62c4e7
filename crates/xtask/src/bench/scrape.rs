//! Reads a balancer's metrics as a Prometheus would, only more often: what it costs to be watched belongs to the figures.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks. Prometheus asks every 15 s if nobody says otherwise.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Asks until it is dropped.
pub(super) struct Scraper {
    /// Its end is the sign to stop.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    /// Fails when the first look does.
    pub(super) fn start(address: SocketAddr) -> Result<Self, String> {
        let page = scrape(address).map_err(|e| format!("cannot read the metrics at {address}: {e}"))?;
        if !page.starts_with("HTTP/1.1 200") {
            let line = page.lines().next().unwrap_or_default();
            return Err(format!("the metrics at {address} are not to be had: {line}"));
        }
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // A balancer that has ended is noticed by what is measured.
                let _ = scrape(address);
            }
        });
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn scrape(address: SocketAddr) -> io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In one piece: the other end may answer as soon as it has read something.
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answer(listener: &TcpListener, text: &str) {
        let (mut stream, _) = listener.accept().expect("a look");
        let mut request = [0; 256];
        let length = stream.read(&mut request).expect("a request");
        assert!(request[..length].starts_with(b"GET /metrics HTTP/1.1\r\n"));
        stream.write_all(text.as_bytes()).expect("an answer");
    }

    #[test]
    fn looks_again_and_again_until_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || (0..2).for_each(|_| answer(&listener, "HTTP/1.1 200 OK\r\n\r\n")));
        let scraper = Scraper::start(address).expect("the first look");
        // It ends with the second.
        server.join().expect("two looks");
        drop(scraper);
    }

    #[test]
    fn metrics_that_are_not_there_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || answer(&listener, "HTTP/1.1 404 Not Found\r\n\r\n"));
        let error = Scraper::start(address).err().expect("not found");
        assert!(error.ends_with("are not to be had: HTTP/1.1 404 Not Found"), "{error}");
        server.join().expect("one look");
    }
}
