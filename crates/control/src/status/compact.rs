//! Addresses as people write them: neighbouring ports as a range.

use ringway_core::model::Address;
use std::net::SocketAddr;

/// Each address, or each range of ports of one, in the order given.
pub fn compact(addresses: &[Address]) -> Vec<String> {
    let mut ranges: Vec<(Address, Option<u16>)> = Vec::new();
    for address in addresses {
        match (ranges.last_mut(), address) {
            (Some((Address::Inet(first), last)), Address::Inet(next)) if follows(*first, *last, *next) => {
                *last = Some(next.port());
            }
            _ => ranges.push((address.clone(), None)),
        }
    }
    let text = |(first, last): (Address, Option<u16>)| match last {
        Some(last) => format!("{first}-{last}"),
        None => first.to_string(),
    };
    ranges.into_iter().map(text).collect()
}

/// Whether `next` is the port behind the range.
fn follows(first: SocketAddr, last: Option<u16>, next: SocketAddr) -> bool {
    let last = last.unwrap_or(first.port());
    let mut expected = first;
    expected.set_port(last.wrapping_add(1));
    last != u16::MAX && expected == next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ports_of_one_address_are_a_range() {
        let addresses = [
            "0.0.0.0:27000",
            "0.0.0.0:27001",
            "0.0.0.0:27002",
            "0.0.0.0:27004",
            "[::]:27005",
            "127.0.0.1:65535",
            "127.0.0.1:53",
        ]
        .map(|text| Address::Inet(text.parse().expect("an address")));
        assert_eq!(
            compact(&addresses),
            [
                "0.0.0.0:27000-27002",
                "0.0.0.0:27004",
                "[::]:27005",
                "127.0.0.1:65535",
                "127.0.0.1:53"
            ]
        );
    }
}
