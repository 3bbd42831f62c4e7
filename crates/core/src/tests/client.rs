use crate::balance::{ClientKey, Tried};
use crate::model::BackendIndex;
use std::net::IpAddr;

fn key(address: &str) -> ClientKey {
    ClientKey::from(address.parse::<IpAddr>().expect("an address of this test"))
}

#[test]
fn a_client_is_the_same_through_ipv4_and_dual_stack_listeners() {
    assert_eq!(key("192.0.2.7"), key("::ffff:192.0.2.7"));
    assert_ne!(key("192.0.2.7"), key("192.0.2.8"));
    assert_ne!(key("192.0.2.7"), key("::192.0.2.7"), "only the mapped form is IPv4");
    assert_ne!(key("2001:db8::1"), key("2001:db8::2"));
    assert_ne!(ClientKey::UNIX, key("127.0.0.1"));
}

#[test]
fn sixteen_tried_backends_are_remembered_once_each() {
    let mut tried = Tried::default();
    assert!(tried.is_empty());
    assert!(
        !tried.contains(BackendIndex(0)),
        "unused places of the set mean nothing"
    );
    for position in 0..16 {
        assert!(tried.insert(BackendIndex(position * 100)));
        assert!(tried.insert(BackendIndex(position * 100)));
        assert_eq!(tried.len(), position + 1);
    }
    assert!(tried.contains(BackendIndex(0)) && tried.contains(BackendIndex(1500)));
    assert!(!tried.contains(BackendIndex(1)));
    assert!(!tried.insert(BackendIndex(7)), "a seventeenth does not fit");
    assert!(tried.insert(BackendIndex(300)), "but what is in it stays in it");
    assert_eq!(tried.len(), 16);
}
