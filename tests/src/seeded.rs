//! Chance with a seed: a small generator, and streams of bytes of which every position is known.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for things that need no replay (port numbers).
    pub fn from_time() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is after 1970");
        Self(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound` (which is at least 1).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }
}

/// The seed of this run: `RINGWAY_TEST_SEED`, else taken from the clock.
pub fn run_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("RINGWAY_TEST_SEED") {
        Ok(text) => text.parse().expect("RINGWAY_TEST_SEED is a decimal number"),
        Err(_) => Rng::from_time().bits() >> 32,
    })
}

/// Prime, so that blocks of any buffer size that change places, double or vanish always show.
const TABLE_BYTES: usize = 1_048_573;

/// An endless stream of bytes; two streams of one run start at different places of one random table.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    start: usize,
}

impl Pattern {
    /// The stream with this number.
    pub fn new(stream: u64) -> Self {
        Self {
            start: (Rng::new(run_seed() ^ stream).bits() % TABLE_BYTES as u64) as usize,
        }
    }

    /// Writes the bytes from `position` on into `out`.
    pub fn fill(&self, position: u64, out: &mut [u8]) {
        self.each_run(position, out.len(), |at, bytes| {
            out[at..at + bytes.len()].copy_from_slice(bytes)
        });
    }

    /// Whether `seen` are the bytes from `position` on.
    pub fn matches(&self, position: u64, seen: &[u8]) -> bool {
        let mut same = true;
        self.each_run(position, seen.len(), |at, bytes| {
            same &= seen[at..at + bytes.len()] == *bytes
        });
        same
    }

    fn each_run(&self, position: u64, len: usize, mut visit: impl FnMut(usize, &[u8])) {
        let table = table();
        let mut done = 0;
        while done < len {
            let from = (self.start + (position % TABLE_BYTES as u64) as usize + done) % TABLE_BYTES;
            let run = (len - done).min(TABLE_BYTES - from);
            visit(done, &table[from..from + run]);
            done += run;
        }
    }
}

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rng = Rng::new(run_seed());
        let mut bytes = Vec::with_capacity(TABLE_BYTES + 8);
        while bytes.len() < TABLE_BYTES {
            bytes.extend_from_slice(&rng.bits().to_le_bytes());
        }
        bytes.truncate(TABLE_BYTES);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs for seed 0, published with the reference implementation (prng.di.unimi.it, splitmix64.c).
    #[test]
    fn splitmix_gives_the_published_numbers() {
        let mut rng = Rng::new(0);
        assert_eq!([rng.bits(), rng.bits()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn a_block_out_of_place_shows() {
        let pattern = Pattern::new(7);
        let mut bytes = vec![0; 3 * 65_536];
        pattern.fill(1_000_000, &mut bytes);
        assert!(pattern.matches(1_000_000, &bytes));
        for size in [1, 4096, 16_384, 65_536] {
            let mut moved = bytes.clone();
            moved.rotate_left(size);
            assert!(!pattern.matches(1_000_000, &moved), "moved by {size}");
        }
    }

    #[test]
    fn a_stream_is_the_same_in_any_pieces() {
        let pattern = Pattern::new(9);
        let (mut whole, mut pieces) = (vec![0; 50_000], vec![0; 50_000]);
        pattern.fill(TABLE_BYTES as u64 - 20_000, &mut whole);
        for (index, piece) in pieces.chunks_mut(777).enumerate() {
            pattern.fill(TABLE_BYTES as u64 - 20_000 + index as u64 * 777, piece);
        }
        assert!(whole == pieces);
    }
}
