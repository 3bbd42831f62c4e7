//! Stable hashes: the same value on every machine, in every version. Changing one moves clients of running balancers.

use crate::model::Address;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// What a hash is for. Different purposes get unrelated values for the same bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Finds a client's place among backends.
    Client,
    /// Scores a backend in rendezvous, and sorts backends independently of their order in the file.
    Backend,
    /// Where a backend begins in the Maglev table.
    MaglevOffset,
    /// How far a backend steps in the Maglev table.
    MaglevSkip,
}

impl Purpose {
    const fn key(self) -> u64 {
        u64::from_le_bytes(*match self {
            Self::Client => b"client  ",
            Self::Backend => b"backend ",
            Self::MaglevOffset => b"offset  ",
            Self::MaglevSkip => b"skip    ",
        })
    }
}

/// Hashes bytes for a purpose under the pool's seed.
pub(crate) fn keyed(seed: u64, purpose: Purpose, bytes: &[u8]) -> u64 {
    siphash_2_4(seed, purpose.key(), bytes)
}

/// The bytes by which all nodes know a backend, whatever its position or the way its address is written.
///
/// IPv4 (also mapped into IPv6): 4, address, port. IPv6: 6, address, port, scope. UNIX: 1, path. Numbers are
/// big-endian.
pub(crate) fn address_bytes(address: &Address) -> Vec<u8> {
    match address {
        Address::Inet(inet) => match inet.ip().to_canonical() {
            IpAddr::V4(ip) => [&[4][..], &ip.octets(), &inet.port().to_be_bytes()].concat(),
            IpAddr::V6(ip) => {
                let scope = match inet {
                    SocketAddr::V6(v6) => v6.scope_id(),
                    SocketAddr::V4(_) => 0,
                };
                [&[6][..], &ip.octets(), &inet.port().to_be_bytes(), &scope.to_be_bytes()].concat()
            }
        },
        Address::Unix(path) => [&[1][..], path.as_os_str().as_bytes()].concat(),
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), 64 bits.
pub(crate) fn siphash_2_4(key_low: u64, key_high: u64, bytes: &[u8]) -> u64 {
    let mut v = [
        key_low ^ 0x736f_6d65_7073_6575,
        key_high ^ 0x646f_7261_6e64_6f6d,
        key_low ^ 0x6c79_6765_6e65_7261,
        key_high ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for &word in words {
        sip_compress(&mut v, u64::from_le_bytes(word));
    }
    // The last word carries the rest and, in its highest byte, the length modulo 256.
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    sip_compress(&mut v, u64::from_le_bytes(last) | (bytes.len() as u64) << 56);

    v[2] ^= 0xff;
    for _ in 0..4 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014; constants by Stafford): a bijection in which every input
/// bit reaches every output bit.
#[inline]
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The `n`-th output of SplitMix64 with seed 0.
#[inline]
pub(crate) const fn split_mix(n: u64) -> u64 {
    mix(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
