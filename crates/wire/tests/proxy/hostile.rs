//! Chance: valid headers mutated, and random bytes. The body of the fuzz target says what must hold.

use crate::forge::{BOTH, SIGNATURE, any_valid};
use crate::seeded::{Rng, figure};
use ringway_wire::proxy::fuzz::fuzz_proxy;
use ringway_wire::proxy::{HEADER_MAX, read};

#[test]
fn a_million_mutated_headers() {
    let mut rng = Rng::new("a_million_mutated_headers");
    let [mut taken, mut waiting, mut refused] = [0_usize; 3];
    for _ in 0..figure(50_000, 1_000_000) {
        let mut bytes = any_valid(&mut rng);
        if rng.below(8) > 0 {
            rng.mutate(&mut bytes);
        }
        match read(&bytes, BOTH, HEADER_MAX) {
            Ok(Some(_)) => taken += 1,
            Ok(None) => waiting += 1,
            Err(_) => refused += 1,
        }
        fuzz_proxy(&bytes);
    }
    println!("{taken} taken, {waiting} unfinished, {refused} refused");
    // Every branch has been seen often, or this tests less than it says.
    assert!([taken, waiting, refused].iter().all(|count| *count > 1_000));
}

#[test]
fn a_million_random_beginnings() {
    let mut rng = Rng::new("a_million_random_beginnings");
    for _ in 0..figure(50_000, 1_000_000) {
        let count = rng.below(120);
        let tail = rng.bytes(count);
        let start: &[u8] = rng.pick(&[&SIGNATURE[..0], b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE]);
        fuzz_proxy(&[start, &tail].concat());
    }
}

#[test]
fn every_valid_header_is_taken() {
    let mut rng = Rng::new("every_valid_header_is_taken");
    for _ in 0..figure(20_000, 1_000_000) {
        let bytes = any_valid(&mut rng);
        let found = read(&bytes, BOTH, HEADER_MAX);
        assert_eq!(
            found.map(|header| header.map(|header| header.len)),
            Ok(Some(bytes.len())),
            "{bytes:02X?}"
        );
    }
}

/// With a checksum no single bit may change what is understood.
#[test]
fn a_flipped_bit_breaks_the_checksum() {
    let tlvs = crate::forge::tlv(0x02, b"a.example");
    let bytes = crate::forge::with_checksum(0x21, 0x11, crate::forge::IPV4_BLOCK, &tlvs, b"\x04\x00\x00");
    let told = read(&bytes, BOTH, HEADER_MAX).unwrap().unwrap().addresses.source();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = read(&flipped, BOTH, HEADER_MAX);
        // Where the bits of family, length or type keep the checksum from being found, it cannot help: then whatever
        // is understood, it is not another client.
        if let Ok(Some(header)) = found {
            let source = header.addresses.source();
            assert!(source.is_none() || source == told, "bit {bit}: {header:?}");
        }
    }
}
