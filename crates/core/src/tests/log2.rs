use crate::balance::log2::{FRACTION_BITS, minus_log2};
use proptest::prelude::*;

const ONE: u64 = 1 << FRACTION_BITS;
/// 2^-22, the promised bound, and one unit of rounding.
const ERROR_MAX: u64 = (ONE >> 22) + 1;

#[test]
fn powers_of_two_are_exact() {
    assert_eq!(FRACTION_BITS, 44);
    for power in 0..64_u32 {
        assert_eq!(minus_log2(1 << power), u64::from(64 - power) * ONE);
    }
    assert_eq!(minus_log2(0), 64 * ONE, "0 is taken as 1");
}

/// floor((64 - log2 u) * 2^44), calculated with 60 decimal digits by Python's `decimal`.
#[test]
fn agrees_with_sixty_digits() {
    let expected = [
        (3, 1_098_016_951_656_514),
        (0x1234_5678_9abc_def0, 67_092_748_248_584),
        (0xc000_0000_0000_0000, 7_301_416_902_722),
        (0xfedc_ba98_7654_3210, 113_052_122_624),
        (0xffff_ffff_0000_0000, 5_909),
        (u64::MAX, 0),
    ];
    for (u, exact) in expected {
        let calculated = minus_log2(u);
        assert!(
            calculated + 2 >= exact && calculated <= exact + ERROR_MAX,
            "-log2({u:#x} / 2^64): calculated {calculated}, exact {exact}"
        );
    }
}

/// At the entries of the table nothing is interpolated: 1 + i / 1024 for i = 1, 2, 100, 512, 600, 1023, from the same
/// calculation. Its last bit may be lost to rounding.
#[test]
fn table_entries_are_exact() {
    let expected: [(u64, u64); 6] = [
        (1, 0x005_c499_4dd0),
        (2, 0x00b_87c1_ff85),
        (100, 0x226_9c36_9120),
        (512, 0x95c_01a3_9fbd),
        (600, 0xaa5_3746_52a1),
        (1023, 0xffd_1d28_e4f2),
    ];
    for (i, exact) in expected {
        let calculated = ONE - minus_log2((1024 + i) << 53);
        assert!(
            exact.abs_diff(calculated) <= 1,
            "entry {i}: {calculated:#x}, exact {exact:#x}"
        );
    }
}

/// Across every border between segments, where a slip would show first.
#[test]
fn never_increases_at_the_borders() {
    for i in 1..=1024_u64 {
        let border = if i == 1024 { u64::MAX } else { (1024 + i) << 53 };
        let around = [
            border - 2,
            border - 1,
            border,
            border.saturating_add(1),
            border.saturating_add(2),
        ]
        .map(minus_log2);
        assert!(around.is_sorted_by(|a, b| a >= b), "border {i}: {around:?}");
    }
}

proptest! {
    #[test]
    fn never_increases(a: u64, b: u64, distance in 0..64_u32) {
        let near = a.saturating_add(b >> distance);
        prop_assert!(minus_log2(near) <= minus_log2(a), "{a} {near}");
    }

    /// Against the floating-point unit, whose error at this size is below 2^-46.
    #[test]
    fn stays_within_the_promised_error(u in 1..u64::MAX, shift in 0..64_u32) {
        // Scaled so that the conversion to f64 is exact.
        let u = (u >> shift) & !0x7ff;
        prop_assume!(u > 0);
        let exact = (64.0 - (u as f64).log2()) * ONE as f64;
        let error = minus_log2(u) as f64 - exact;
        prop_assert!((-2.0..=ERROR_MAX as f64 + 2.0).contains(&error), "{u:#x}: {error}");
    }
}
