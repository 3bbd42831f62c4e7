//! The plainest TCP relay on `tokio-uring`: per direction, read into a buffer of 64 KiB, write all of it, read again.
//!
//! It owns the baseline of decision D1 (why the data plane does not stand on tokio-uring) and must stay plain: no
//! tuning, no balancing, one fixed backend per listener. `cargo xtask bench` starts it as one more balancer.
//!
//! Usage: `naive-tokio-uring LISTEN=BACKEND [LISTEN=BACKEND ...]`

use std::net::{Shutdown, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use tokio_uring::net::{TcpListener, TcpStream};

/// Bytes read at once, the same as the buffers of the balancers it is compared with.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    let pairs: Result<Vec<_>, String> = std::env::args().skip(1).map(|text| parse_pair(&text)).collect();
    let result = pairs.and_then(|pairs| if pairs.is_empty() { Err(usage()) } else { serve(&pairs) });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("naive-tokio-uring: {message}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    "usage: naive-tokio-uring LISTEN=BACKEND [LISTEN=BACKEND ...], for example 127.0.0.1:8000=127.0.0.1:9000".into()
}

fn parse_pair(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (listen, backend) = text.split_once('=').ok_or_else(usage)?;
    let parse = |part: &str| {
        part.parse()
            .map_err(|_| format!("{part:?} is not an address like 127.0.0.1:8000"))
    };
    Ok((parse(listen)?, parse(backend)?))
}

/// Runs until the process is killed; ends only when a listener fails.
fn serve(pairs: &[(SocketAddr, SocketAddr)]) -> Result<(), String> {
    tokio_uring::start(async {
        let mut accepting = Vec::new();
        for &(listen, backend) in pairs {
            let listener = TcpListener::bind(listen).map_err(|e| format!("cannot listen on {listen}: {e}"))?;
            accepting.push(tokio_uring::spawn(accept(listener, backend)));
        }
        for task in accepting {
            task.await.map_err(|e| format!("accepting ended: {e}"))??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, backend: SocketAddr) -> Result<(), String> {
    loop {
        let (client, _) = listener.accept().await.map_err(|e| format!("accept: {e}"))?;
        tokio_uring::spawn(relay(client, backend));
    }
}

/// One connection. Errors end it silently: the load generator at the other end counts them.
async fn relay(client: TcpStream, backend: SocketAddr) {
    let Ok(backend) = TcpStream::connect(backend).await else {
        return;
    };
    let nodelay = client.set_nodelay(true).and(backend.set_nodelay(true));
    if nodelay.is_err() {
        return;
    }
    let (client, backend) = (Rc::new(client), Rc::new(backend));
    let up = tokio_uring::spawn(copy(Rc::clone(&client), Rc::clone(&backend)));
    copy(backend, client).await;
    // The other direction ends by itself: either its end of stream or the shutdown of its target.
    let _ = up.await;
}

async fn copy(from: Rc<TcpStream>, to: Rc<TcpStream>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (result, filled) = from.read(buffer).await;
        let bytes = match result {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(_) => {
                // Without this the other direction would wait for ever on a peer that is half gone.
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        };
        let (result, written) = to.write_all(tokio_uring::buf::BoundedBuf::slice(filled, ..bytes)).await;
        buffer = written.into_inner();
        if result.is_err() {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
