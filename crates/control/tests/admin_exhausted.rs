//! The admin port answers although the process has no descriptor left. A file of its own: the limit is the process's.

mod common;

use common::{fresh, live};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringway_control::admin::{Admin, SPARES};
use ringway_control::readiness::Readiness;
use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn answers(address: SocketAddr, client: std::net::TcpStream) -> bool {
    client.set_nonblocking(true).expect("sets");
    let mut client = TcpStream::from_std(client).expect("registers");
    assert_eq!(client.peer_addr().expect("is connected"), address);
    client
        .write_all(b"GET /health/live HTTP/1.0\r\n\r\n")
        .await
        .expect("sends");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("reads");
    answer.ends_with("{\"status\":\"alive\"}")
}

fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test]
async fn answers_without_a_free_descriptor_again_and_again() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("reads the limit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).expect("lowers the limit");
    let admin = Admin::bind(([127, 0, 0, 1], 0).into()).expect("binds");
    let address = admin.address().expect("is bound");
    tokio::spawn(admin.serve(live(fresh(), Readiness::default())));
    tokio::task::yield_now().await;

    let mut hoard = take_all();
    assert!(hoard.len() > 10, "{}", hoard.len());
    for round in 0..3 * SPARES {
        // One descriptor for the client's own end; the server's end has to come from a spare.
        hoard.pop();
        let client = std::net::TcpStream::connect(address).expect("the backlog has room");
        assert!(
            File::open("/dev/null").is_err(),
            "there is a descriptor left in round {round}"
        );
        let answered = timeout(Duration::from_secs(10), answers(address, client)).await;
        assert_eq!(answered, Ok(true), "round {round}");
        hoard.extend(take_all());
    }
}
