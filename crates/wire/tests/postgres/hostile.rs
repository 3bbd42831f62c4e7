//! Chance: messages mutated, and random bytes. The bodies of the fuzz targets say what must hold.

use crate::seeded::{Rng, figure};
use crate::watch::{key_data, message};
use ringway_wire::postgres::fuzz::{fuzz_key_watch, fuzz_startup};
use ringway_wire::postgres::{CancelKey, GSSENC_REQUEST, SSL_REQUEST, read_startup};

fn any_startup(rng: &mut Rng) -> Vec<u8> {
    match rng.below(5) {
        0 => SSL_REQUEST.to_vec(),
        1 => GSSENC_REQUEST.to_vec(),
        2 => {
            let bytes = rng.pick(&[4, 4, 32, 256]);
            let mut request = Vec::new();
            CancelKey::new(rng.bits() as u32, &rng.bytes(bytes))
                .unwrap()
                .write_request(&mut request);
            request
        }
        3 => b"\x00\x00\x00\x20\x00\x03\x00\x00user\x00me\x00database\x00me\x00\x00".to_vec(),
        _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03".to_vec(),
    }
}

#[test]
fn a_million_first_messages() {
    let mut rng = Rng::new("a_million_first_messages");
    let [mut taken, mut waiting, mut refused] = [0_usize; 3];
    for _ in 0..figure(50_000, 1_000_000) {
        let mut bytes = any_startup(&mut rng);
        rng.mutate(&mut bytes);
        match read_startup(&bytes) {
            Ok(Some(_)) => taken += 1,
            Ok(None) => waiting += 1,
            Err(_) => refused += 1,
        }
        fuzz_startup(&bytes);
    }
    println!("{taken} taken, {waiting} unfinished, {refused} refused");
    assert!([taken, waiting, refused].iter().all(|count| *count > 1_000));
}

/// Sizes of pieces in front, as the body wants them.
fn any_session(rng: &mut Rng) -> Vec<u8> {
    let count = rng.below(16);
    let mut bytes = vec![count as u8];
    for _ in 0..count {
        let size = rng.pick(&[0, 0, 1, 2, 5, 30, 255]);
        bytes.push(size);
    }
    let answers = rng.pick(&[&b""[..], b"", b"N", b"NN", b"S"]);
    bytes.extend(answers);
    bytes.extend(message(b'R', b"\x00\x00\x00\x00"));
    for _ in 0..rng.below(6) {
        let kind = rng.pick(b"RRRSSSNEv");
        let length = rng.below(60);
        let body = rng.bytes(length);
        bytes.extend(message(kind, &body));
    }
    let secret = rng.pick(&[4, 4, 32, 256]);
    bytes.extend(key_data(&rng.bytes(secret)));
    bytes.extend(b"Z\x00\x00\x00\x05I");
    bytes
}

#[test]
fn a_million_sessions() {
    let mut rng = Rng::new("a_million_sessions");
    for _ in 0..figure(20_000, 1_000_000) {
        let mut bytes = any_session(&mut rng);
        if rng.below(4) > 0 {
            rng.mutate(&mut bytes);
        }
        fuzz_key_watch(&bytes);
    }
}
