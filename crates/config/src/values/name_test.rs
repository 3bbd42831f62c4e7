use super::*;
use proptest::prelude::*;
use ringway_core::model::Address;

fn addresses(host: &str, port: u16) -> Target {
    Target::Name(Name {
        host: host.into(),
        records: Records::Addresses(port),
    })
}

#[test]
fn names_are_kept_in_lower_case_without_a_dot_at_the_end() {
    assert_eq!(
        parse_target("db.example.com:5432"),
        Ok(addresses("db.example.com", 5_432))
    );
    assert_eq!(
        parse_target("DB.Example.com.:5432"),
        Ok(addresses("db.example.com", 5_432))
    );
    assert_eq!(parse_target("localhost:80"), Ok(addresses("localhost", 80)));
    assert_eq!(parse_target("db_1:1"), Ok(addresses("db_1", 1)));
    assert_eq!(parse_target("1a.2b:65535"), Ok(addresses("1a.2b", 65_535)));
    assert_eq!(
        parse_target("xn--bcher-kva.example:80"),
        Ok(addresses("xn--bcher-kva.example", 80))
    );
}

#[test]
fn services_have_no_port() {
    let services = |host: &str| {
        Ok(Target::Name(Name {
            host: host.into(),
            records: Records::Services,
        }))
    };
    assert_eq!(
        parse_target("srv:_postgresql._tcp.Example.com"),
        services("_postgresql._tcp.example.com")
    );
    assert_eq!(parse_target("srv:db.service.consul."), services("db.service.consul"));
    let fault = parse_target("srv:_x._tcp.a:80").expect_err("a port");
    assert_eq!(
        (fault.message.as_str(), fault.help.as_str(), fault.part),
        (
            "\"srv:_x._tcp.a:80\" has a port",
            "leave it out: ports come with SRV records",
            Some(13..16)
        )
    );
    assert_eq!(parse_target("srv:").expect_err("empty").message, "\"srv:\" has no name");
}

#[test]
fn what_is_no_name_is_an_address_or_told_as_one() {
    assert_eq!(
        parse_target("10.0.0.1:80"),
        Ok(Target::Address(Address::Inet("10.0.0.1:80".parse().expect("IPv4"))))
    );
    assert_eq!(
        parse_target("unix:/run/x.sock"),
        Ok(Target::Address(Address::Unix("/run/x.sock".into())))
    );
    for (text, message, help) in [
        (
            "10.0.0.300:80",
            "\"10.0.0.300:80\" is not an address",
            "an IPv4 address is four numbers from 0 to 255 without leading zeros",
        ),
        ("", "is empty", "write an address and a port, such as 10.0.0.11:5432"),
        ("10.0.0.1", "\"10.0.0.1\" has no port", "write 10.0.0.1:5432"),
        ("tcp://db:80", "\"tcp://db:80\" begins with a scheme", "write db:80"),
        (
            "::1:80",
            "\"::1:80\" has no port, or lacks brackets around the address",
            "write [::1]:80 if 80 is the port",
        ),
    ] {
        let fault = parse_target(text).expect_err(text);
        assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
    }
}

#[test]
fn refusals_say_what_would_be_right() {
    for (text, message, help, part) in [
        (
            "db.example.com",
            "\"db.example.com\" has no port",
            "write db.example.com:PORT, such as db.example.com:5432",
            None,
        ),
        (
            "db:http",
            "\"db:http\" has no usable port",
            "write a port from 1 to 65535",
            Some(3..7),
        ),
        (
            "db:0",
            "\"db:0\" has no usable port",
            "write a port from 1 to 65535",
            Some(3..4),
        ),
        (
            "db.300:80",
            "\"db.300:80\" is neither an address nor a name",
            "a name does not end in a number; an address is four numbers from 0 to 255",
            Some(0..6),
        ),
        (
            "db..example:80",
            "\"db..example:80\" has a dot without a name before it",
            "write one dot between the parts of a name",
            Some(3..3),
        ),
        (
            "*.example:80",
            "\"*.example:80\" has \"*\" in it",
            "names have letters, digits, - and _ between their dots",
            Some(0..1),
        ),
        (
            "d b:80",
            "\"d b:80\" has \" \" in it",
            "names have letters, digits, - and _ between their dots",
            Some(1..2),
        ),
        (
            "bücher.example:80",
            "\"bücher.example:80\" has \"ü\" in it",
            "write its form in ASCII, which begins with xn--",
            Some(1..3),
        ),
        (
            "db.-a:80",
            "\"db.-a:80\" has a - at the edge of a part",
            "begin and end each part with a letter or a digit",
            Some(3..5),
        ),
    ] {
        let fault = parse_target(text).expect_err(text);
        assert_eq!(
            (fault.message.as_str(), fault.help.as_str(), fault.part),
            (message, help, part),
            "{text}"
        );
    }
}

#[test]
fn lengths_are_those_of_dns() {
    let label = |bytes: usize| format!("{}:80", "a".repeat(bytes));
    assert!(parse_target(&label(63)).is_ok());
    assert_eq!(
        parse_target(&label(64)).expect_err("64 bytes").help,
        "DNS takes 63 bytes between two dots"
    );
    let name = |last: usize| format!("{0}.{0}.{0}.{1}.a:80", "a".repeat(62), "a".repeat(last));
    assert!(parse_target(&name(62)).is_ok(), "3 × 63 + 62 + 2 = 253");
    assert_eq!(parse_target(&name(63)).expect_err("254 bytes").help, "DNS takes 253");
}

#[test]
fn a_server_name_is_a_name_alone() {
    assert_eq!(parse_server_name("DB.example.com"), Ok("db.example.com".into()));
    for (text, help) in [
        ("10.0.0.1", "write a name: SNI knows no addresses"),
        ("::1", "write a name: SNI knows no addresses"),
        ("[::1]", "write a name: SNI knows no addresses"),
        ("db.example.com:443", "write the name alone"),
        (
            "*.example.com",
            "names have letters, digits, - and _ between their dots",
        ),
        ("", "write one, such as db.example.com"),
    ] {
        assert_eq!(parse_server_name(text).expect_err(text).help, help, "{text}");
    }
}

proptest! {
    #[test]
    fn parts_lie_inside_the_text(text in "\\PC{0,20}|(srv:)?[a-z0-9_.:-]{0,20}|[a-zü.]{0,9}:[0-9+-]{0,6}") {
        for fault in [parse_target(&text).err(), parse_server_name(&text).err()] {
            if let Some(Fault { part: Some(part), .. }) = fault {
                prop_assert!(text.get(part).is_some(), "{}", text);
            }
        }
    }

    #[test]
    fn an_accepted_name_is_accepted_again(text in "[A-Za-z0-9_.-]{1,30}") {
        if let Ok(name) = parse_server_name(&text) {
            prop_assert_eq!(parse_server_name(&name), Ok(name.clone()));
            prop_assert!(!name.ends_with('.') && !name.contains(|c: char| c.is_ascii_uppercase()));
        }
    }
}
