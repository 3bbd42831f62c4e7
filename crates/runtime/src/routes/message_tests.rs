//! Bytes as Linux 6.18 on x86-64 answered them, in a namespace with the rules of the how-to page; the addresses in
//! the expectations are those that ip(8) was given there.
#![cfg(target_endian = "little")]

use super::super::Transport;
use super::*;
use std::net::SocketAddr;

const SEQUENCE: u32 = 7;

const REFUSED: &str = "580000000200000007000000de2200008fffffff440000001a000100070000000000000002202000000000000010000008000100c0000201080002000a09010b05001b000600000006001c00153800000800030003000000";
const FORWARDED: &str = "700000001800000007000000de22000002202000fe0000010002000108000f00fe00000008000100c0000201080002000a09010b0800040003000000080005000a0901fe080003000300000024000c000200000000000000000000000000000000000000000000000000000000000000";
const DELIVERED_V6: &str = "900000001800000007000000de2200000a808000640300020000000008000f00640000001400010020010db80000000000000000000000011400020020010db800010000000000000000001108000300030000000800060000040000080004000100000024000c0000000000000000000000000000000000000000000000000000000000000000000500140000000000";
/// `ip rule`: local, `fwmark 0x10/0xf0 lookup 300`, `from 10.9.1.11 iif v1 ipproto tcp sport 5432 lookup 100`, main, default.
const RULES: &str = "340000002000020007000000de22000002000000ff0000010000000008000f00ff00000008000e00ffffffff05001500020000004c0000002000020007000000de22000002000000fc0000010000000008000f002c01000008000e00ffffffff050015000000000008000600fc7f000008000a001000000008001000f0000000640000002000020007000000de22000002002000640000010000000008000f006400000008000e00ffffffff0500150000000000070003007631000008000600fd7f0000080017003815381506001c00ffff00000500160006000000080002000a09010b3c0000002000020007000000de22000002000000fe0000010000000008000f00fe00000008000e00ffffffff050015000200000008000600fe7f00003c0000002000020007000000de22000002000000fd0000010000000008000f00fd00000008000e00ffffffff050015000200000008000600ff7f0000140000000300020007000000de22000000000000";
/// Tables 300 and 100 deliver everything; of the local table only 10.9.1.1, 127.0.0.0/8 and 127.0.0.1.
const LOCAL: &str = "2c0000001800220007000000de22000002000000fc03fe020000000008000f002c01000008000400010000002c0000001800220007000000de220000020000006403fe020000000008000f006400000008000400010000003c0000001800220007000000de22000002200000ff02fe020000000008000f00ff000000080001000a090101080007000a09010108000400030000003c0000001800220007000000de22000002080000ff02fe020000000008000f00ff000000080001007f000000080007007f00000108000400010000003c0000001800220007000000de22000002200000ff02fe020000000008000f00ff000000080001007f000001080007007f0000010800040001000000";
const LINK: &str =
    "380000001000000007000000de22000000000100030000004310010000000000070003007631000008000d00e80300000500100006000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn entries<T>(hex: &str, read: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
    let bytes = bytes(hex);
    let read_entry = |answer| match answer {
        Answer::Entry { body, .. } => read(body),
        Answer::End | Answer::Failed(_) => None,
    };
    answers(&bytes, SEQUENCE).filter_map(read_entry).collect()
}

fn answer_of_backend() -> Packet {
    let backend = SocketAddr::from(([10, 9, 1, 11], 5432));
    Packet {
        from: Some((Transport::Tcp, backend)),
        to: IpAddr::from([192, 0, 2, 1]),
        comes_in: Some(3),
        mark: 0,
    }
}

/// What iproute2 and Python's `struct` make of the same question.
#[test]
fn questions_are_what_the_kernel_understood() {
    let question = Request::fate(&answer_of_backend(), SEQUENCE);
    let expected = "440000001a000100070000000000000002202000000000000010000008000100c0000201080002000a09010b05001b000600000006001c00153800000800030003000000";
    assert_eq!(question.bytes(), bytes(expected));
    let marked = Packet {
        mark: 0x10,
        ..answer_of_backend()
    };
    let expected = "4c0000001a000100070000000000000002202000000000000010000008000100c0000201080002000a09010b05001b000600000006001c001538000008000300030000000800100010000000";
    assert_eq!(Request::fate(&marked, SEQUENCE).bytes(), bytes(expected));
    let rules = Request::rules(Family::of(true), SEQUENCE);
    assert_eq!(
        rules.bytes(),
        bytes("1c0000002200010307000000000000000a0000000000000000000000")
    );
    let local = Request::local_routes(Family::of(false), SEQUENCE);
    assert_eq!(
        local.bytes(),
        bytes("1c0000001a0001030700000000000000020000000000000200000000")
    );
    let link = Request::interface(3, SEQUENCE);
    assert_eq!(
        link.bytes(),
        bytes("2000000012000100070000000000000000000000030000000000000000000000")
    );
}

#[test]
fn answers_tell_where_a_packet_goes() {
    let refused = bytes(REFUSED);
    let answer = answers(&refused, SEQUENCE).next();
    assert_eq!(answer, Some(Answer::Failed(Errno(113))), "EHOSTUNREACH: not forwarded");
    let elsewhere = Fate::Elsewhere {
        interface: 3,
        table: 254,
    };
    let fates = |hex| entries(hex, route).into_iter().map(Route::fate).collect::<Vec<_>>();
    assert_eq!(fates(FORWARDED), [elsewhere]);
    assert_eq!(fates(DELIVERED_V6), [Fate::Delivered]);
    let delivering = |route: Route| route.delivers_everything();
    let tables: Vec<u32> = entries(LOCAL, route).into_iter().filter_map(delivering).collect();
    assert_eq!(tables, [300, 100]);
    assert_eq!(entries(LINK, interface_name), ["v1"]);
}

#[test]
fn answers_to_other_questions_are_passed_over() {
    assert_eq!(answers(&bytes(RULES), SEQUENCE + 1).next(), None);
    let end = bytes(RULES);
    assert_eq!(answers(&end, SEQUENCE).last(), Some(Answer::End));
}

#[test]
fn rules_apply_as_the_kernel_applied_them() {
    let rules = entries(RULES, rule);
    let outline: Vec<_> = rules.iter().map(|rule| (rule.priority, rule.table)).collect();
    assert_eq!(
        outline,
        [(0, 255), (32764, 300), (32765, 100), (32766, 254), (32767, 253)]
    );
    assert_eq!((rules[1].mark, rules[1].mask), (0x10, 0xf0));
    let applies = |rule: usize, packet: Packet| rules[rule].applies(&packet, "v1");
    let answer = answer_of_backend();
    let marked = |mark| Packet { mark, ..answer };
    assert_eq!(applies(1, answer), Some(false));
    assert_eq!(
        applies(1, marked(0x13)),
        Some(true),
        "the mask leaves the lower bits out"
    );
    assert_eq!(applies(1, marked(0x20)), Some(false));
    assert_eq!(applies(2, answer), Some(true));
    assert_eq!(rules[2].applies(&answer, "v2"), Some(false), "another interface");
    let from = |transport, text: &str| Packet {
        from: Some((transport, text.parse().expect("an address"))),
        ..answer
    };
    let about_senders: Vec<bool> = rules.iter().map(Rule::is_about_senders).collect();
    assert_eq!(about_senders, [false, false, true, false, false]);
    for packet in [
        from(Transport::Udp, "10.9.1.11:5432"),
        from(Transport::Tcp, "10.9.1.12:5432"),
        from(Transport::Tcp, "10.9.1.11:5433"),
        Packet { from: None, ..answer },
    ] {
        assert_eq!(applies(2, packet), Some(false), "{packet:?}");
    }
}

#[test]
fn inverted_and_strange_rules_are_told_apart() {
    // The rule of the how-to page alone, with FIB_RULE_INVERT; then with a type of service; then one that drops.
    let start = 0x34 + 0x4c;
    let plain = bytes(RULES)[start + HEADER..start + 0x64].to_vec();
    let applies = |at: usize, value: u8| {
        let mut changed = plain.clone();
        changed[at] |= value;
        let rule = rule(&changed).expect("a rule");
        rule.applies(&answer_of_backend(), "v1")
    };
    assert_eq!(applies(8, 2), Some(false));
    assert_eq!(applies(3, 4), None);
    assert_eq!(applies(7, 6), None);
    // A mask of ports, of which kernels since 6.15 tell.
    let mask = plain.windows(6).position(|bytes| bytes == [6, 0, 28, 0, 0xff, 0xff]);
    let mut masked = plain.clone();
    masked[mask.expect("it is there") + 4] = 0xf0;
    let rule = rule(&masked).expect("a rule");
    assert_eq!(rule.applies(&answer_of_backend(), "v1"), None);
}

#[test]
fn prefixes_hold_as_many_bits_as_they_say() {
    let within = |address: &str, prefix: &str, bits| {
        let ip = |text: &str| text.parse().expect("an address");
        is_within(ip(address), (ip(prefix), bits))
    };
    assert!(within("10.9.1.11", "10.9.1.8", 29) && !within("10.9.1.16", "10.9.1.8", 29));
    assert!(within("203.0.113.1", "0.0.0.0", 0) && within("10.0.0.1", "10.0.0.1", 32));
    assert!(within("2001:db8::1", "2001:db8::", 32) && !within("2001:db9::1", "2001:db8::", 32));
    assert!(!within("10.0.0.1", "::", 0), "another family");
}

/// Whatever is cut off or flipped: nothing panics, and what is read lies within.
#[test]
fn broken_answers_end_early() {
    for hex in [REFUSED, FORWARDED, DELIVERED_V6, RULES, LOCAL, LINK] {
        let whole = bytes(hex);
        let count = answers(&whole, SEQUENCE).count();
        for cut in 0..whole.len() {
            let found: Vec<_> = answers(&whole[..cut], SEQUENCE).collect();
            assert!(found.len() < count || cut + 3 >= whole.len(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                for answer in answers(&changed, SEQUENCE).take(100) {
                    let Answer::Entry { body, .. } = answer else { continue };
                    let _ = (route(body), rule(body), interface_name(body));
                }
            }
        }
    }
}
