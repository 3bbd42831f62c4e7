//! PROXY headers as HAProxy and nginx understand them, compared with what our reader says of the same headers. The
//! product takes no part: its reader's answers are in the table, which `crates/wire` holds it to.

#[path = "../../crates/wire/tests/proxy/shared/headers.rs"]
mod headers;

use headers::{Other, Row, Seen, rows};
use ringway_tests::address::{Address, free_v4};
use ringway_tests::program::{Dir, Launch};
use ringway_tests::scope::Turn;
use ringway_tests::server::{serve, start_nginx};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A complete request, so that a server that takes too many or too few bytes for the header does not answer 200.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: x\r\n\r\n";

/// Sends a header and a request. What the server saw: the words of its answer, or `None` when it refused.
fn ask(server: &Address, header: &[u8]) -> (SocketAddr, Option<Vec<Vec<u8>>>) {
    let mut connection = TcpStream::connect(server.to_string()).expect("the server listens");
    connection
        .set_read_timeout(Some(LIMIT))
        .expect("a socket has a time limit");
    let own = connection.local_addr().expect("a connected socket has an address");
    // A server that has seen enough may reset before all is written.
    let written = connection.write_all(&[header, REQUEST].concat());
    let mut answer = Vec::new();
    match written.and_then(|()| connection.read_to_end(&mut answer)) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(error) => panic!("{server} neither answers nor refuses: {error}"),
    }
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let words = body.filter(|_| answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.0 200 "));
    let words = words.map(|end| {
        answer[end + 4..]
            .split(|byte| *byte == b' ')
            .map(<[u8]>::to_vec)
            .collect()
    });
    (own, words)
}

/// Address, port, name, unique id; empty for what is not there. Both programs show port 0 as nothing.
fn understood(server: &Address, row: &Row) -> Seen {
    let (own, Some(words)) = ask(server, &row.header) else {
        return Seen::Refused {
            label: "refused".into(),
        };
    };
    let text = |at: usize| String::from_utf8(words.get(at).cloned().unwrap_or_default()).expect("digits and points");
    let address: IpAddr = text(0).parse().expect("an address");
    let port = match text(1).as_str() {
        "" => 0,
        port => port.parse().expect("a port"),
    };
    let source = SocketAddr::new(address.to_canonical(), port);
    let value = |at: usize| words.get(at).filter(|value| !value.is_empty()).cloned();
    Seen::Taken {
        source: Some(source).filter(|source| *source != own),
        authority: value(2),
        unique_id: value(3),
    }
}

/// Every row, with `other` choosing this program's column; `tells_tlvs`: whether it shows name and unique id.
fn compare(server: &Address, program: &str, other: fn(&Row) -> &Other, tells_tlvs: bool) {
    let (mut same, mut different, mut wrong) = (0, 0, Vec::new());
    for row in rows() {
        let seen = understood(server, &row);
        let as_ours = comparable(&row.ours, tells_tlvs);
        if seen == as_ours {
            same += 1;
            if let Other::Different(_) = other(&row) {
                println!("{}: this {program} no longer differs", row.name);
            }
            continue;
        }
        match other(&row) {
            Other::Different(known) if seen == comparable(known, tells_tlvs) => different += 1,
            known => wrong.push(format!(
                "{}: {program} sees {seen:?}, not {as_ours:?} or {known:?}",
                row.name
            )),
        }
    }
    println!("{program}: {same} as ours, {different} otherwise, as explained");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(same > different, "mostly the same");
}

/// The same, without what the other program does not tell.
fn comparable(seen: &Seen, tells_tlvs: bool) -> Seen {
    match seen {
        Seen::Refused { .. } => Seen::Refused {
            label: "refused".into(),
        },
        Seen::Taken {
            source,
            authority,
            unique_id,
        } => Seen::Taken {
            source: *source,
            authority: authority.clone().filter(|_| tells_tlvs),
            unique_id: unique_id.clone().filter(|_| tells_tlvs),
        },
    }
}

#[test]
fn haproxy_understands_headers_as_we_do() {
    let _turn = Turn::start("haproxy_understands_headers_as_we_do", Duration::from_secs(120));
    let (dir, address) = (Dir::new(), free_v4());
    let config = dir.write(
        "haproxy.cfg",
        &format!(
            "defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 10s\n\
             frontend front\n bind {address} accept-proxy\n \
             http-request return status 200 content-type text/plain \
             lf-string \"%[src] %[src_port] %[fc_pp_authority] %[fc_pp_unique_id]\"\n"
        ),
    );
    let file = config.display().to_string();
    let _haproxy = serve(&Launch::default(), "haproxy", &["-db", "-f", &file], &address);
    compare(&address, "HAProxy", |row| &row.haproxy, true);
}

#[test]
fn nginx_understands_headers_as_we_do() {
    let _turn = Turn::start("nginx_understands_headers_as_we_do", Duration::from_secs(120));
    let (dir, plain, address) = (Dir::new(), free_v4(), free_v4());
    let server = format!(
        "listen {address} proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol; \
         return 200 \"$remote_addr $remote_port\";"
    );
    let _nginx = start_nginx(&dir.path("nginx"), &plain, &server);
    compare(&address, "nginx", |row| &row.nginx, false);
}
