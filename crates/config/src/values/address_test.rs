use super::*;
use proptest::prelude::*;

fn inet(text: &str) -> Address {
    Address::Inet(text.parse().expect("an address in the test"))
}

#[test]
fn accepted_as_written() {
    for text in [
        "10.0.0.11:5432",
        "[2001:db8::1]:443",
        "[fe80::1%2]:80",
        "127.0.0.1:1",
        "255.255.255.254:65535",
    ] {
        assert_eq!(parse_bind(text), Ok(inet(text)), "{text}");
        assert_eq!(parse_backend(text), Ok(inet(text)), "{text}");
    }
    let unix = Address::Unix(PathBuf::from("/run/x.sock"));
    assert_eq!(parse_bind("unix:/run/x.sock"), Ok(unix.clone()));
    assert_eq!(parse_backend("unix:/run/x.sock"), Ok(unix));
}

#[test]
fn wildcards_are_for_listening_only() {
    for text in ["0.0.0.0:80", "*:80", ":80"] {
        assert_eq!(parse_bind(text), Ok(inet("0.0.0.0:80")), "{text}");
        assert!(parse_backend(text).is_err(), "{text}");
    }
    assert_eq!(parse_bind("[::]:80"), Ok(inet("[::]:80")));
    assert!(parse_backend("[::]:80").is_err());
}

#[test]
fn refusals_say_what_would_be_right() {
    for (text, message, help) in [
        ("", "is empty", "write an address and a port, such as 10.0.0.11:5432"),
        ("10.0.0.1", "\"10.0.0.1\" has no port", "write 10.0.0.1:5432"),
        ("10.0.0.1:", "\"10.0.0.1:\" has no port", "write 10.0.0.1:5432"),
        (
            "10.0.0.1:http",
            "\"10.0.0.1:http\" has no usable port",
            "write a port from 1 to 65535",
        ),
        (
            "10.0.0.1:65536",
            "\"10.0.0.1:65536\" has no usable port",
            "write a port from 1 to 65535",
        ),
        (
            "10.0.0.1:0",
            "\"10.0.0.1:0\" has port 0",
            "write a port from 1 to 65535",
        ),
        (
            "10.0.0.1:80-90",
            "\"10.0.0.1:80-90\" names several ports",
            "write one address for each port",
        ),
        (
            "010.0.0.1:80",
            "\"010.0.0.1:80\" is not an address",
            "an IPv4 address is four numbers from 0 to 255 without leading zeros",
        ),
        (
            "10.0.0:80",
            "\"10.0.0:80\" is not an address",
            "an IPv4 address is four numbers from 0 to 255 without leading zeros",
        ),
        (
            "5432",
            "\"5432\" has no host",
            "write an address, such as 10.0.0.11:5432",
        ),
        (
            "db:5432",
            "\"db:5432\" is not an address",
            "names are not looked up here; write an address",
        ),
        (
            "localhost",
            "\"localhost\" is not an address",
            "names are not looked up here; write 127.0.0.1:5432",
        ),
        (
            "2001:db8::1",
            "\"2001:db8::1\" has no port, or lacks brackets around the address",
            "write [2001:db8::1]:5432",
        ),
        (
            "2001:db8:::80",
            "\"2001:db8:::80\" is not an address",
            "IPv6 addresses stand in brackets: [2001:db8::1]:5432",
        ),
        (
            "::1:80",
            "\"::1:80\" has no port, or lacks brackets around the address",
            "write [::1]:80 if 80 is the port",
        ),
        ("[::1]", "\"[::1]\" has no port", "write [::1]:5432"),
        ("[::1", "\"[::1\" lacks the closing bracket", "write [2001:db8::1]:5432"),
        (
            "[10.0.0.1]:80",
            "\"[10.0.0.1]:80\" is not an address",
            "only IPv6 addresses stand in brackets: [2001:db8::1]:5432",
        ),
        (
            "[::1]:x",
            "\"[::1]:x\" has no usable port",
            "write a port from 1 to 65535",
        ),
        (
            "[fe80::1]:80",
            "\"[fe80::1]:80\" is link-local and lacks its interface",
            "add the interface's index (see `ip link`): [fe80::1%2]:80",
        ),
        (
            "[fe80::1%eth0]:80",
            "\"[fe80::1%eth0]:80\" names its interface",
            "write its index (see `ip link`): [fe80::1%2]:80",
        ),
        (
            "[::ffff:10.0.0.1]:80",
            "\"[::ffff:10.0.0.1]:80\" is an IPv4 address written as IPv6",
            "write 10.0.0.1:80",
        ),
        (
            "224.0.0.1:80",
            "\"224.0.0.1:80\" is a group of machines",
            "write the address of one machine",
        ),
        (
            "255.255.255.255:80",
            "\"255.255.255.255:80\" is a group of machines",
            "write the address of one machine",
        ),
        (
            "[ff02::1]:80",
            "\"[ff02::1]:80\" is a group of machines",
            "write the address of one machine",
        ),
        (
            "10.0.0.0/8",
            "\"10.0.0.0/8\" is not an address",
            "write one address, such as 10.0.0.11:5432",
        ),
        (
            "tcp://10.0.0.1:80",
            "\"tcp://10.0.0.1:80\" begins with a scheme",
            "write 10.0.0.1:80",
        ),
        (
            "http://db/",
            "\"http://db/\" begins with a scheme",
            "write db with a port",
        ),
        (
            "unix:run/x",
            "\"unix:run/x\" has no absolute path",
            "write an absolute path: unix:/run/name.sock",
        ),
        (
            "unix:@x",
            "\"unix:@x\" is an abstract socket; these are not supported",
            "write an absolute path: unix:/run/name.sock",
        ),
        (
            "unix:/run/",
            "\"unix:/run/\" does not name a socket",
            "write unix:/run/name.sock",
        ),
    ] {
        let fault = parse_backend(text).expect_err(text);
        assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
    }
}

#[test]
fn a_unix_path_fits_sun_path() {
    let path = |bytes: usize| format!("unix:/{}", "x".repeat(bytes - 1));
    assert!(parse_bind(&path(107)).is_ok());
    assert_eq!(
        parse_bind(&path(108)).expect_err("108 bytes").help,
        "the kernel takes 107 bytes"
    );
}

#[test]
fn sources_have_no_port() {
    let address = |text: &str| Ok(Source::Address(text.parse().expect("an address")));
    assert_eq!(parse_source("10.0.0.5"), address("10.0.0.5"));
    assert_eq!(parse_source("[2001:db8::5]"), address("2001:db8::5"));
    assert_eq!(parse_source("client"), Ok(Source::Client));
    assert_eq!(
        parse_source("10.0.0.5:80").expect_err("port").help,
        "the kernel chooses it: write 10.0.0.5"
    );
    assert_eq!(
        parse_source("0.0.0.0").expect_err("wildcard").help,
        "leave `source` out to let the kernel choose"
    );
    assert_eq!(
        parse_source("::ffff:10.0.0.5").expect_err("mapped").help,
        "write 10.0.0.5"
    );
    assert!(parse_source("fe80::1").is_err(), "an IpAddr cannot say which interface");
    assert!(parse_source("Client").is_err() && parse_source("eth0").is_err() && parse_source("224.0.0.1").is_err());
}

#[test]
fn dns_servers_listen_on_port_53_unless_written() {
    for (text, address) in [
        ("10.0.0.53", "10.0.0.53:53"),
        ("10.0.0.53:5353", "10.0.0.53:5353"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::53]", "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
    ] {
        assert_eq!(
            parse_dns_server(text),
            Ok(address.parse().expect("an address")),
            "{text}"
        );
    }
    for (text, message, help) in [
        (
            "dns.example.com",
            "\"dns.example.com\" is not an address",
            "names are not looked up here; write an address",
        ),
        (
            "0.0.0.0",
            "\"0.0.0.0\" means every address",
            "write the server's own address",
        ),
        (
            "10.0.0.53:0",
            "\"10.0.0.53:0\" has port 0",
            "write a port from 1 to 65535",
        ),
        (
            "224.0.0.1",
            "\"224.0.0.1\" is a group of machines",
            "write the address of one machine",
        ),
        ("", "is empty", "write an IP address, such as 10.0.0.53"),
    ] {
        let fault = parse_dns_server(text).expect_err(text);
        assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
    }
}

#[test]
fn the_admin_port_is_an_ip_address() {
    assert_eq!(parse_admin(":9900"), Ok("0.0.0.0:9900".parse().expect("an address")));
    assert_eq!(
        parse_admin("unix:/run/a.sock").expect_err("unix").help,
        "write an IP address and a port"
    );
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(ip in any::<[u8; 4]>(), port in 1_u16..) {
        let address = SocketAddr::from((ip, port));
        if let Ok(read) = parse_backend(&address.to_string()) {
            prop_assert_eq!(read, Address::Inet(address));
        } else {
            let ip = address.ip();
            prop_assert!(ip.is_multicast() || ip.is_unspecified() || ip.to_string() == "255.255.255.255");
        }
    }

    #[test]
    fn parts_lie_inside_the_text(text in "\\PC{0,20}|[0-9a-f:.*%\\[\\]/-]{0,20}|unix:[/@a-z]{0,9}|[0-9.]{0,9}:[0-9+-]{0,6}") {
        for fault in [parse_bind(&text).err(), parse_backend(&text).err(), parse_admin(&text).err()] {
            if let Some(Fault { part: Some(part), .. }) = fault {
                prop_assert!(text.get(part).is_some(), "{}", text);
            }
        }
    }
}
