//! The logarithm that weighted rendezvous needs, in integers only, so that every machine computes the same bits.

/// Fractional bits of [`minus_log2`].
pub(crate) const FRACTION_BITS: u32 = 44;

/// log2(1 + i / 1024) for i in 0 ..= 1024, as fixed point with [`FRACTION_BITS`].
const TABLE: [u64; SEGMENTS + 1] = {
    let mut table = [0; SEGMENTS + 1];
    let mut i = 0;
    while i <= SEGMENTS {
        table[i] = log2_by_squaring(SEGMENTS + i);
        i += 1;
    }
    table
};

const SEGMENT_BITS: u32 = 10;
const SEGMENTS: usize = 1 << SEGMENT_BITS;

/// -log2(u / 2^64) as fixed point with [`FRACTION_BITS`]: 0 (u near 2^64) to 64.0 (u at most 1; 0 is taken as 1).
///
/// Straight lines between the entries of a table. That is exact at the entries, at most 2^-22 too great in between
/// (a chord lies below the curve by h²/8 · log2 e, with h = 2^-10), and above all never increasing in `u`: a greater
/// `u` never gets a greater result, not by one unit of rounding.
#[inline]
pub(crate) const fn minus_log2(u: u64) -> u64 {
    let u = if u == 0 { 1 } else { u };
    let zeros = u.leading_zeros();
    // 63 bits behind the leading one: the segment, then the place within it.
    let mantissa = (u << zeros) << 1;
    let segment = (mantissa >> (64 - SEGMENT_BITS)) as usize;
    let within = (mantissa << SEGMENT_BITS) >> 32;
    let low = TABLE[segment];
    // The difference is below 2^35 and `within` below 2^32.
    let log2_mantissa = low + (((TABLE[segment + 1] - low) as u128 * within as u128) >> 32) as u64;
    ((zeros as u64 + 1) << FRACTION_BITS) - log2_mantissa
}

/// log2(x / 1024) for x in 1024 ..= 2048, one bit of the fraction per squaring; runs at compile time only.
const fn log2_by_squaring(x: usize) -> u64 {
    const ONE: u128 = 1 << 62;
    let mut mantissa = (x as u128) << (62 - SEGMENT_BITS);
    let mut log2 = 0;
    if mantissa >= 2 * ONE {
        return 1 << FRACTION_BITS;
    }
    let mut bit = 0;
    while bit < FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 62;
        log2 <<= 1;
        if mantissa >= 2 * ONE {
            mantissa >>= 1;
            log2 |= 1;
        }
        bit += 1;
    }
    log2
}
