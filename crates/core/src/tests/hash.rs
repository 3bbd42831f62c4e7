use crate::balance::hash::{Purpose, address_bytes, keyed, mix, siphash_2_4, split_mix};
use crate::model::Address;
use proptest::prelude::*;
use std::hash::Hasher;
use std::net::{SocketAddr, SocketAddrV6};

const KEY: (u64, u64) = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);

/// The authors' vectors (vectors.h of their reference code): key 00 01 .. 0f, message 00 01 .. of each length.
#[test]
fn siphash_agrees_with_its_authors() {
    let published = [
        0x726f_db47_dd0e_0e31,
        0x74f8_39c5_93dc_67fd,
        0x0d6c_8009_d9a9_4f5a,
        0x8567_6696_d7fb_7e2d,
        0xcf27_94e0_2771_87b7,
        0x1876_5564_cd99_a68d,
        0xcbc9_466e_58fe_e3ce,
        0xab02_00f5_8b01_d137,
        0x93f5_f579_9a93_2462,
    ];
    let message: Vec<u8> = (0..15).collect();
    for (len, expected) in published.into_iter().enumerate() {
        assert_eq!(siphash_2_4(KEY.0, KEY.1, &message[..len]), expected, "length {len}");
    }
    // Appendix A of the paper.
    assert_eq!(siphash_2_4(KEY.0, KEY.1, &message), 0xa129_ca61_49be_45e5);
}

/// SplitMix64 with seed 1234567 (rosettacode.org, "Pseudo-random numbers/Splitmix64").
#[test]
fn mix_is_the_finalizer_of_splitmix64() {
    let published = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
    for (step, expected) in (1..).zip(published) {
        assert_eq!(
            mix(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(step).wrapping_add(1_234_567)),
            expected
        );
    }
    assert_eq!(split_mix(0), 0xe220_a839_7b1d_cdaf, "the first output with seed 0");
    assert_eq!(split_mix(1), 0x6e78_9e6a_a1b9_65f4);
}

#[test]
fn purposes_are_unrelated() {
    let hashes = [
        Purpose::Client,
        Purpose::Backend,
        Purpose::MaglevOffset,
        Purpose::MaglevSkip,
    ]
    .map(|p| keyed(1, p, b"same"));
    for (at, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..at].contains(hash));
    }
}

#[test]
fn addresses_have_these_bytes() {
    let inet = |text: &str| Address::Inet(text.parse::<SocketAddr>().expect("an address of this test"));
    assert_eq!(address_bytes(&inet("10.0.0.1:5432")), [4, 10, 0, 0, 1, 0x15, 0x38]);
    assert_eq!(
        address_bytes(&inet("[::ffff:10.0.0.1]:5432")),
        [4, 10, 0, 0, 1, 0x15, 0x38]
    );
    let mut expected = [0; 23];
    expected[..3].copy_from_slice(&[6, 0xfe, 0x80]);
    expected[16..].copy_from_slice(&[1, 0, 80, 0, 0, 0, 3]);
    let scoped = SocketAddrV6::new("fe80::1".parse().expect("an address of this test"), 80, 9, 3);
    assert_eq!(
        address_bytes(&Address::Inet(scoped.into())),
        expected,
        "the flow label is no part of it"
    );
    assert_eq!(address_bytes(&Address::Unix("/run/x".into())), *b"\x01/run/x");
}

proptest! {
    #[test]
    fn siphash_agrees_with_the_standard_library(keys: (u64, u64), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        #[expect(deprecated, reason = "the only SipHash-2-4 of the standard library")]
        let mut std = std::hash::SipHasher::new_with_keys(keys.0, keys.1);
        std.write(&bytes);
        prop_assert_eq!(siphash_2_4(keys.0, keys.1, &bytes), std.finish());
    }

    /// Undone step by step, with the inverses of the odd factors modulo 2^64.
    #[test]
    fn mix_is_a_bijection(z: u64) {
        let unshift = |x: u64, by: u32| x ^ (x >> by) ^ (x >> (2 * by));
        let x = unshift(mix(z), 31).wrapping_mul(0x3196_42b2_d24d_8ec3);
        let x = unshift(x, 27).wrapping_mul(0x96de_1b17_3f11_9089);
        prop_assert_eq!(unshift(x, 30), z);
    }
}
