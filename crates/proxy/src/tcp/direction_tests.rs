//! The bounds of `direction`, against hand calculations.

use super::*;

#[test]
fn the_bound_shrinks_with_the_buffers_left() {
    assert_eq!(queue_max((1024, 1024)), 256 * 1024);
    assert_eq!(queue_max((512, 1024)), 256 * 1024);
    assert_eq!(queue_max((511, 1024)), 64 * 1024);
    assert_eq!(queue_max((256, 1024)), 64 * 1024);
    assert_eq!(queue_max((255, 1024)), 0);
}

#[test]
fn streams_share_half_of_the_buffers() {
    const RING: u64 = 16 << 20;
    assert_eq!(batch_max(RING, 1), 1024 * 1024);
    assert_eq!(batch_max(RING, 8), 1024 * 1024);
    assert_eq!(batch_max(RING, 16), 512 * 1024);
    assert_eq!(batch_max(RING, 32), 256 * 1024);
    assert_eq!(batch_max(RING, 500), 16_777);
    assert_eq!(batch_max(RING, 0), 1024 * 1024, "a stream that is not counted yet");
}
