//! Chance with a seed that is printed, and how much of it.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Rng(u64);

impl Rng {
    /// The seed is `RINGWAY_TEST_SEED`, else taken from the clock. A failing test shows it, and how to use it.
    pub(crate) fn new(test: &str) -> Self {
        let seed = match std::env::var("RINGWAY_TEST_SEED") {
            Ok(text) => text.parse().expect("RINGWAY_TEST_SEED is a decimal number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 >> 8,
        };
        println!("{test}: RINGWAY_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// So many bytes of any value.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }

    /// Changes `bytes` as broken or hostile senders might: flips, cuts, doublings, numbers at their limits.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => {
                    bytes[at] = self.pick(&[0, 1, 0x7F, 0x80, 0xFE, 0xFF, b'\r', b'\n', b' ', b'0'])
                }
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.bits() as u8),
                4 if at < bytes.len() => {
                    bytes.remove(at);
                }
                5 => {
                    let end = at + self.below(bytes.len() - at + 1);
                    let copied = bytes[at..end].to_vec();
                    bytes.splice(at..at, copied);
                }
                _ => {
                    let count = self.below(40);
                    let tail = self.bytes(count);
                    bytes.extend(tail);
                }
            }
        }
    }
}

/// `full` with `RINGWAY_PROMISES=full`, else `reduced`.
pub(crate) fn figure(reduced: usize, full: usize) -> usize {
    match std::env::var("RINGWAY_PROMISES") {
        Ok(value) if value == "full" => full,
        _ => reduced,
    }
}
