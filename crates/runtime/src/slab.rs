//! A table of numbered slots in chunks: O(1) insert and remove, low numbers first, empty chunks given back.
//!
//! Slots are handed out lowest first so that after a peak the upper chunks run empty and their memory returns to the
//! system (promise P1). Generations come from one counter of the whole table, so that a chunk that was given back and
//! allocated again cannot bring an old token back to life.

/// Slots in a chunk; one bit each in `Chunk::used`.
const CHUNK: usize = 64;

/// Names one use of one slot. A token outlives its entry harmlessly: the generation no longer matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// As the 64 bits that travel through the kernel.
    pub(crate) const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The reverse of [`Self::pack`].
    pub(crate) const fn unpack(bits: u64) -> Self {
        Self {
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

struct Chunk<T> {
    /// Bit i: slot i is taken.
    used: u64,
    entries: Box<[Option<(u32, T)>]>,
}

pub(crate) struct Slab<T> {
    chunks: Vec<Option<Chunk<T>>>,
    /// Bit c: chunk c has room (also when its memory was given back).
    roomy: Vec<u64>,
    /// No chunk below this word of `roomy` has room.
    roomy_hint: usize,
    /// Chunks that are allocated and empty; more than one is given back.
    empty_chunks: usize,
    generation: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            roomy: Vec::new(),
            roomy_hint: 0,
            empty_chunks: 0,
            generation: 0,
            len: 0,
        }
    }

    /// Entries that exist.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> Token {
        let index = self.roomy_chunk();
        let chunk = self.chunks[index].get_or_insert_with(|| {
            self.empty_chunks += 1;
            Chunk {
                used: 0,
                entries: (0..CHUNK).map(|_| None).collect(),
            }
        });
        if chunk.used == 0 {
            self.empty_chunks -= 1;
        }
        let offset = chunk.used.trailing_ones() as usize;
        chunk.used |= 1 << offset;
        if chunk.used == u64::MAX {
            self.roomy[index / 64] &= !(1 << (index % 64));
        }
        self.generation = self.generation.wrapping_add(1);
        chunk.entries[offset] = Some((self.generation, value));
        self.len += 1;
        Token {
            slot: (index * CHUNK + offset) as u32,
            generation: self.generation,
        }
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        match self.entry_mut(token.slot)? {
            (generation, value) if *generation == token.generation => Some(value),
            _ => None,
        }
    }

    /// The entry in a slot, whatever its generation. For owners that hold the slot exclusively.
    pub(crate) fn slot_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entry_mut(slot).map(|(_, value)| value)
    }

    /// The same with the entry's generation.
    pub(crate) fn slot_with_generation(&mut self, slot: u32) -> Option<(u32, &mut T)> {
        self.entry_mut(slot).map(|(generation, value)| (*generation, value))
    }

    pub(crate) fn slot(&self, slot: u32) -> Option<&T> {
        let chunk = self.chunks.get(slot as usize / CHUNK)?.as_ref()?;
        chunk.entries[slot as usize % CHUNK].as_ref().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        self.get_mut(token)?;
        self.remove_slot(token.slot)
    }

    pub(crate) fn remove_slot(&mut self, slot: u32) -> Option<T> {
        let index = slot as usize / CHUNK;
        let offset = slot as usize % CHUNK;
        let chunk = self.chunks.get_mut(index)?.as_mut()?;
        let (_, value) = chunk.entries[offset].take()?;
        chunk.used &= !(1 << offset);
        self.roomy[index / 64] |= 1 << (index % 64);
        self.roomy_hint = self.roomy_hint.min(index / 64);
        self.len -= 1;
        if chunk.used == 0 {
            if self.empty_chunks > 0 {
                self.chunks[index] = None;
            } else {
                self.empty_chunks = 1;
            }
        }
        Some(value)
    }

    /// Every entry with its slot, for sweeps that are rare (shutdown).
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut T)> {
        self.chunks
            .iter_mut()
            .enumerate()
            .filter_map(|(index, chunk)| Some((index, chunk.as_mut()?)))
            .flat_map(|(index, chunk)| {
                chunk.entries.iter_mut().enumerate().filter_map(move |(offset, entry)| {
                    let (generation, value) = entry.as_mut()?;
                    Some((
                        Token {
                            slot: (index * CHUNK + offset) as u32,
                            generation: *generation,
                        },
                        value,
                    ))
                })
            })
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut (u32, T)> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?.as_mut()?;
        chunk.entries[slot as usize % CHUNK].as_mut()
    }

    /// The lowest chunk with room; grows the table by one chunk when there is none.
    fn roomy_chunk(&mut self) -> usize {
        while self.roomy_hint < self.roomy.len() {
            let word = self.roomy[self.roomy_hint];
            if word != 0 {
                return self.roomy_hint * 64 + word.trailing_zeros() as usize;
            }
            self.roomy_hint += 1;
        }
        let index = self.chunks.len();
        if index.is_multiple_of(64) {
            self.roomy.push(0);
        }
        self.chunks.push(None);
        self.roomy[index / 64] |= 1 << (index % 64);
        self.roomy_hint = index / 64;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_does_not_reach_a_new_entry() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.slot, first.slot);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
    }

    #[test]
    fn low_slots_come_first_and_empty_chunks_are_given_back() {
        let mut slab = Slab::new();
        let tokens: Vec<_> = (0..10_000).map(|n| slab.insert(n)).collect();
        for token in &tokens[1..] {
            slab.remove(*token);
        }
        assert_eq!(slab.chunks.iter().flatten().count(), 2, "the used one and one spare");
        assert_eq!(slab.insert(7).slot, 1);
        assert_eq!(slab.len(), 2);
    }

    #[test]
    fn an_old_token_stays_dead_when_its_chunk_was_freed_and_allocated_again() {
        let mut slab = Slab::new();
        let all: Vec<_> = (0..256).map(|n| slab.insert(n)).collect();
        for token in &all {
            slab.remove(*token);
        }
        for n in 0..256 {
            slab.insert(n);
        }
        assert!(all.iter().all(|token| slab.get_mut(*token).is_none()));
    }

    #[test]
    fn token_packs_generation_above_slot() {
        let token = Token {
            slot: 0x0102_0304,
            generation: 0x0a0b_0c0d,
        };
        assert_eq!(token.pack(), 0x0a0b_0c0d_0102_0304);
        assert_eq!(Token::unpack(0x0a0b_0c0d_0102_0304), token);
    }
}
