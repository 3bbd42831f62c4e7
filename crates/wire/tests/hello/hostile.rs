//! Chance and malice: what must hold for every input is in the body of the fuzz target.

use crate::captures::CAPTURES;
use crate::message_of;
use crate::seeded::{Rng, figure};
use ringway_wire::hello::forge;
use ringway_wire::hello::fuzz::fuzz_hello;

/// A hello of a real client that was changed: as a stream, or inside, in records and a length that fit again.
pub(crate) fn mutated(rng: &mut Rng) -> Vec<u8> {
    let capture = &CAPTURES[rng.below(CAPTURES.len())];
    if rng.below(3) == 0 {
        let mut stream = capture.bytes.to_vec();
        rng.mutate(&mut stream);
        return stream;
    }
    let mut message = message_of(capture.bytes);
    rng.mutate(&mut message);
    if rng.below(4) > 0 && message.len() >= 4 {
        let length = (message.len() as u32 - 4).to_be_bytes();
        message[..4].copy_from_slice(&[1, length[1], length[2], length[3]]);
    }
    let sizes: Vec<usize> = (0..rng.below(4)).map(|_| 1 + rng.below(600)).collect();
    forge::records(&message, sizes)
}

#[test]
fn a_million_random_and_mutated_hellos_break_nothing() {
    let mut rng = Rng::new("hello::hostile");
    for _ in 0..figure(50_000, 1_000_000) {
        let bytes = match rng.below(4) {
            0 => {
                let count = rng.below(200);
                let mut noise = rng.bytes(count);
                // Most noise is no TLS at once; half of it gets a beginning that leads further.
                if rng.below(2) == 0 {
                    noise.splice(0..0, [22, 3, 1, 0, 180, 1, 0, 0, 176, 3, 3]);
                }
                noise
            }
            _ => mutated(&mut rng),
        };
        fuzz_hello(&bytes);
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/fuzz_hello");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the corpus") {
        fuzz_hello(&std::fs::read(file.expect("a file").path()).expect("its bytes"));
        count += 1;
    }
    assert!(count > 40, "{count} files in {folder}");
    CAPTURES.iter().for_each(|capture| fuzz_hello(capture.bytes));
}
