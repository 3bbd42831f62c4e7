use super::*;
use proptest::prelude::*;

fn network(address: &str, prefix: u8) -> Network {
    let address = address.parse().expect("an address in the test");
    Network::containing(address, prefix).expect("a network in the test")
}

#[test]
fn accepted_as_written() {
    for (text, address, prefix) in [
        ("10.0.0.0/8", "10.0.0.0", 8),
        ("0.0.0.0/0", "0.0.0.0", 0),
        ("192.0.2.7", "192.0.2.7", 32),
        ("192.0.2.7/32", "192.0.2.7", 32),
        ("192.0.2.6/31", "192.0.2.6", 31),
        ("2001:db8::/32", "2001:db8::", 32),
        ("::/0", "::", 0),
        ("::1", "::1", 128),
        ("::1/128", "::1", 128),
        ("2001:DB8:0::/48", "2001:db8::", 48),
    ] {
        let read = parse_network(text).expect(text);
        assert_eq!(read, network(address, prefix), "{text}");
        assert_eq!(read.prefix(), prefix, "{text}");
    }
}

#[test]
fn refusals_say_what_would_be_right() {
    let example = "write a network such as 10.0.0.0/8 or 2001:db8::/32, or an address";
    let v4_prefix = "write 10.0.0.0/0 to 10.0.0.0/32, or the address alone";
    for (text, message, help) in [
        ("", "is empty", example),
        (
            "10.1.2.3/8",
            "\"10.1.2.3/8\" has bits set after the first 8",
            "write 10.0.0.0/8 for all of it, or 10.1.2.3 alone",
        ),
        (
            "2001:db8::1/64",
            "\"2001:db8::1/64\" has bits set after the first 64",
            "write 2001:db8::/64 for all of it, or 2001:db8::1 alone",
        ),
        (
            "0.0.0.1/0",
            "\"0.0.0.1/0\" has bits set after the first 0",
            "write 0.0.0.0/0 for all of it, or 0.0.0.1 alone",
        ),
        (
            "10.0.0.0/33",
            "\"10.0.0.0/33\" has no usable prefix for IPv4",
            v4_prefix,
        ),
        ("10.0.0.0/", "\"10.0.0.0/\" has no usable prefix for IPv4", v4_prefix),
        (
            "10.0.0.0/08",
            "\"10.0.0.0/08\" has no usable prefix for IPv4",
            v4_prefix,
        ),
        (
            "10.0.0.0/+8",
            "\"10.0.0.0/+8\" has no usable prefix for IPv4",
            v4_prefix,
        ),
        (
            "10.0.0.0/8/8",
            "\"10.0.0.0/8/8\" has no usable prefix for IPv4",
            v4_prefix,
        ),
        (
            "2001:db8::/129",
            "\"2001:db8::/129\" has no usable prefix for IPv6",
            "write 2001:db8::/0 to 2001:db8::/128, or the address alone",
        ),
        (
            "10.0.0.0/255.0.0.0",
            "\"10.0.0.0/255.0.0.0\" has a mask for a prefix",
            "write 10.0.0.0/8",
        ),
        (
            "10.0.0.0/255.0.255.0",
            "\"10.0.0.0/255.0.255.0\" has a mask for a prefix",
            "write how many of the first bits are the network's, such as 10.0.0.0/8",
        ),
        (
            "::ffff:10.0.0.0/104",
            "\"::ffff:10.0.0.0/104\" is IPv4 written as IPv6",
            "write 10.0.0.0/8",
        ),
        (
            "::ffff:192.0.2.7",
            "\"::ffff:192.0.2.7\" is IPv4 written as IPv6",
            "write 192.0.2.7",
        ),
        (
            "all",
            "\"all\" is not a network",
            "every IPv4 address is 0.0.0.0/0, every IPv6 address is ::/0",
        ),
        (
            "10.0.0.0/8, 192.0.2.7",
            "\"10.0.0.0/8, 192.0.2.7\" is several",
            "write a list: [10.0.0.0/8, 192.0.2.7]",
        ),
        (
            "[2001:db8::]/32",
            "\"[2001:db8::]/32\" is in brackets",
            "without a port no brackets are needed: write 2001:db8::/32",
        ),
        (
            "192.0.2.7:80",
            "\"192.0.2.7:80\" has a port",
            "a network has none: write 192.0.2.7",
        ),
        (
            "fe80::1%eth0",
            "\"fe80::1%eth0\" names an interface",
            "networks have none: write fe80::1",
        ),
        ("10/8", "\"10/8\" is not a whole address", "write 10.0.0.0/8"),
        (
            "192.168/16",
            "\"192.168/16\" is not a whole address",
            "write 192.168.0.0/16",
        ),
        ("10.*", "\"10.*\" is not a whole address", "write 10.0.0.0/8"),
        ("10.1.2.", "\"10.1.2.\" is not a whole address", "write 10.1.2.0/24"),
        (
            "192.0.2.*",
            "\"192.0.2.*\" is not a whole address",
            "write 192.0.2.0/24",
        ),
        (
            "10.0.0.1-10.0.0.9",
            "\"10.0.0.1-10.0.0.9\" is a range of addresses",
            "write the networks that it is made of, as a list",
        ),
        (
            "office.example.com",
            "\"office.example.com\" is not a network",
            "names are not looked up here; write a network or an address",
        ),
        ("10", "\"10\" is not a network", example),
        ("300.0.0.0/8", "\"300.0.0.0/8\" is not a network", example),
        ("010.0.0.0/8", "\"010.0.0.0/8\" is not a network", example),
        ("::1::/64", "\"::1::/64\" is not a network", example),
    ] {
        let fault = parse_network(text).expect_err(text);
        assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
        if let Some(part) = fault.part {
            assert!(text.get(part).is_some(), "{text}: the part is none");
        }
    }
}

proptest! {
    #[test]
    fn what_is_shown_is_read_as_the_same(bits: u128, v4: u32, prefix in 0_u8..=128) {
        let v6 = Network::containing(IpAddr::V6(Ipv6Addr::from_bits(bits)), prefix).expect("not mapped");
        prop_assert_eq!(parse_network(&v6.to_string()), Ok(v6));
        let v4 = Network::containing(IpAddr::V4(Ipv4Addr::from_bits(v4)), prefix % 33).expect("short enough");
        prop_assert_eq!(parse_network(&v4.to_string()), Ok(v4));
    }

    #[test]
    fn any_text_gets_an_answer(text in "[0-9a-f:./,*%\\[\\]\\-x ]{0,24}|.{0,12}") {
        if let Err(fault) = parse_network(&text) {
            prop_assert!(!fault.help.is_empty());
            prop_assert!(fault.part.is_none_or(|part| text.get(part).is_some()));
        }
    }
}
