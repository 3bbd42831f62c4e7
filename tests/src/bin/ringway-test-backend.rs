//! A backend of the harness as a process of its own: `ringway-test-backend echo|echo-or-hold|http ADDRESS:PORT`.

use ringway_tests::address::Address;
use ringway_tests::backend::{Backend, Behaviour};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(word), Some(address)) = (args.next(), args.next()) else {
        return Err("a behaviour and an address are needed".into());
    };
    let behaviour = match word.as_str() {
        "echo" => Behaviour::Echo,
        "echo-or-hold" => Behaviour::EchoOrHold,
        "http" => Behaviour::Http("well".to_owned()),
        other => return Err(format!("unknown behaviour {other}").into()),
    };
    let _backend = Backend::start_on(behaviour, Address::Inet(address.parse()?));
    loop {
        // Until it is killed.
        std::thread::park();
    }
}
