//! A backend that is a process of its own, so that it can be killed or stopped as one.

use crate::address::Address;
use crate::binary::test_backend;
use crate::process::{Process, wait_for};
use crate::program::{Launch, Program};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A running `ringway-test-backend`; killed when dropped.
#[derive(Debug)]
pub struct BackendProcess {
    /// Where it listens.
    pub address: Address,
    program: Program,
}

impl BackendProcess {
    /// Starts it with a behaviour by its word (`echo`, `echo-or-hold`, `http`) and waits until its port accepts.
    pub fn start(behaviour: &str, address: &Address) -> Self {
        let Address::Inet(at) = address else {
            panic!("{address} is no port")
        };
        let mut program = Program::start(&Launch::default(), &test_backend(), &[behaviour, &at.to_string()]);
        let up = wait_for(Duration::from_secs(10), || {
            assert!(
                program.ended().is_none(),
                "{behaviour} on {at} ended: {}",
                program.stderr()
            );
            TcpStream::connect(at).ok()
        });
        assert!(up.is_some(), "{behaviour} does not listen on {at} after 10 s");
        let address = address.clone();
        Self { address, program }
    }

    /// SIGKILL; when that was sent, and when the process was seen to be gone: by then its kernel has closed everything.
    pub fn kill(mut self) -> (Instant, Instant) {
        let sent = Instant::now();
        self.program.process.signal(Signal::SIGKILL);
        while self.program.ended().is_none() {
            std::thread::yield_now();
        }
        (sent, Instant::now())
    }

    /// Facts about it, and signals to it.
    pub fn process(&self) -> Process {
        self.program.process
    }
}
