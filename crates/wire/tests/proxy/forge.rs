//! Headers made by hand, valid and not; nothing of ours makes them.

use crate::seeded::Rng;
use ringway_wire::proxy::{Accept, Addresses};
use std::net::SocketAddr;

pub(crate) const BOTH: Accept = Accept { v1: true, v2: true };

/// The signature as the specification prints it.
pub(crate) const SIGNATURE: &[u8] = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A";

/// 192.0.2.1:56324 to 198.51.100.2:443.
pub(crate) const IPV4_BLOCK: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xDC, 0x04, 0x01, 0xBB];

/// [2001:db8::1]:56324 to [2001:db8::2]:443.
pub(crate) fn ipv6_block() -> Vec<u8> {
    let mut block = [0; 36];
    block[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
    block[15] = 1;
    block[16..20].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
    block[31] = 2;
    block[32..].copy_from_slice(&[0xDC, 0x04, 0x01, 0xBB]);
    block.to_vec()
}

/// A header of version 2 whose length is right.
pub(crate) fn v2(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[version_and_command, family], &length, block].concat()
}

pub(crate) fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

pub(crate) fn tcp(source: &str, destination: &str) -> Addresses<'static> {
    Addresses::Tcp {
        source: at(source),
        destination: at(destination),
    }
}

/// CRC32c bit by bit, from its definition: reflected polynomial 0x82F63B78, all ones before and after.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
        }
    }
    !crc
}

/// The header with a right checksum among its TLVs, `before` and `after` others.
pub(crate) fn with_checksum(version_and_command: u8, family: u8, block: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    let zeros = [block, before, &tlv(3, &[0; 4]), after].concat();
    let mut bytes = v2(version_and_command, family, &zeros);
    let sum = crc32c(&bytes).to_be_bytes();
    let field = bytes.len() - after.len() - 4;
    bytes[field..field + 4].copy_from_slice(&sum);
    bytes
}

/// A valid header of any kind.
pub(crate) fn any_valid(rng: &mut Rng) -> Vec<u8> {
    match rng.below(3) {
        0 => any_line(rng).into_bytes(),
        1 => {
            let (family, block) = any_block(rng);
            let (before, after) = (any_tlvs(rng), any_tlvs(rng));
            with_checksum(0x21, family, &block, &before, &after)
        }
        _ => {
            let (family, block) = any_block(rng);
            let block = [block, any_tlvs(rng)].concat();
            v2(rng.pick(&[0x20, 0x21, 0x21, 0x21]), family, &block)
        }
    }
}

fn any_line(rng: &mut Rng) -> String {
    let (a, b) = (rng.bits(), rng.bits());
    let ports = format!("{} {}", a as u16, b as u16);
    let v4 = |bits: u64| std::net::Ipv4Addr::from((bits >> 16) as u32);
    let v6 = |bits: u64| {
        // With runs of zeros, which are what the text form abbreviates.
        let zeros = u128::from(bits) << 64 | u128::from(bits >> 48);
        std::net::Ipv6Addr::from(zeros)
    };
    match rng.below(4) {
        0 | 1 => format!("PROXY TCP4 {} {} {ports}\r\n", v4(a), v4(b)),
        2 => format!("PROXY TCP6 {} {} {ports}\r\n", v6(a), v6(b)),
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    }
}

fn any_block(rng: &mut Rng) -> (u8, Vec<u8>) {
    let (family, bytes) = rng.pick(&[
        (0x11, 12),
        (0x11, 12),
        (0x12, 12),
        (0x21, 36),
        (0x22, 36),
        (0x31, 216),
        (0x32, 216),
        (0x00, 0),
    ]);
    (family, rng.bytes(bytes))
}

/// Of types that may repeat.
fn any_tlvs(rng: &mut Rng) -> Vec<u8> {
    let mut tlvs = Vec::new();
    for _ in 0..rng.below(4) {
        let kind = rng.pick(&[0x04, 0x20, 0x30, 0xE0, 0xEA, 0xEE, 0xFF]);
        let bytes = rng.below(20);
        tlvs.extend(tlv(kind, &rng.bytes(bytes)));
    }
    tlvs
}
