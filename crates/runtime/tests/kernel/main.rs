//! ringway-runtime on the real kernel, through its public face; peers are plain sockets on threads.
//!
//! `process.rs` beside this folder holds the tests that look at the whole process (descriptors, threads, memory, limits)
//! and therefore run one at a time. Every test has a time limit and ends with a check that no task, socket, operation or
//! buffer was left behind.
//!
//! Known traps of io_uring with TCP, and what tests them (files without a path are in this folder):
//!
//! | trap | tested by |
//! |---|---|
//! | 1 an empty buffer ring ends a receive: neither deaf nor spinning afterwards | `receive`: `a_receive_ended_by_an_empty_ring_goes_on`, `everybody_gets_their_bytes_from_a_dry_ring`, `a_dry_ring_does_not_spin`, `idle_readers_do_not_starve_those_behind_them`, `readers_that_gave_up_do_not_starve_those_behind_them`; `traffic`: `greedy_senders_do_not_starve_small_exchanges` |
//! | 2 a completion with bytes may be the last of its receive | `receive`: `a_receive_ended_by_an_empty_ring_goes_on`; `traffic` with small rings |
//! | 3 FIN and RST come after the bytes in front of them, and differ | `receive`: `an_orderly_end_comes_after_the_bytes`, `a_reset_comes_after_the_bytes`, `a_reset_behind_long_completions_is_seen`, `an_end_behind_long_completions_is_seen` |
//! | 5 a short send goes on where it stopped; a reset during it comes to light | `send`: `a_reader_that_stops_gets_the_rest_later`, `short_sends_are_exact`, `a_reset_during_a_transfer_ends_it`, `sends_to_a_peer_that_reset_fail`; no kernel thread: `../process.rs`: `no_kernel_threads_appear` |
//! | 6 sends on one connection keep their order | `send`: `sends_keep_their_order` |
//! | 7 a full completion queue loses nothing | `sockets`: `more_completions_than_the_queue_holds_all_come` |
//! | 8 running out of descriptors ends accepting, the client waits | `../process.rs`: `running_out_of_descriptors_loses_no_client` |
//! | 9 splice(2) waits, signals and stops at urgent bytes unless it is kept from it | `splice`: all of it; `../process.rs`: `splicing_leaves_neither_thread_nor_flag` |
//! | 10 sockets are left blocking | `../process.rs`: `sockets_block_and_are_closed_on_exec` |
//! | 11 a descriptor is closed after its last completion, and then at once | `sockets`: `a_stream_closes_when_its_last_operation_is_over`, `a_receive_without_its_stream_reads_from_nobody_else`, `a_receive_that_ran_dry_without_its_stream_is_cancelled`; `../process.rs`: `dropping_operations_at_random_moments_leaks_nothing` |
//! | 12 cancels race with data, ends and new starts | `receive`: `pauses_keep_the_stream_intact`, `changes_between_once_and_for_ever_keep_the_stream_intact`, `a_paused_receive_holds_the_peer_back`; `sockets`: `stopping_to_accept_loses_no_client`, `connections_that_nobody_took_are_reset`, `an_unanswered_connect_can_be_given_up` |
//! | 13 a close is FIN or RST, as meant | `sockets`: `a_dropped_stream_ends_in_order`, `an_aborted_stream_ends_with_a_reset`, `each_direction_ends_by_itself` |
//! | 15 what a queued entry points to stays until it is submitted | `send`: `connects_behind_a_full_queue_keep_their_addresses`, `sends_behind_a_full_queue_keep_their_bytes`, `a_burst_of_sends_of_many_pieces_is_exact` |
//! | 19 the buffer ring is ours to get right | `traffic`: all of it, `a_lease_keeps_its_bytes_while_others_receive` |
//! | 20 nothing is inherited by children | `../process.rs`: `sockets_block_and_are_closed_on_exec`; `memory` in the crate |
//! | 21 a killed process's address stays bound for a moment | `../process.rs`: `the_address_of_a_killed_process_is_free_soon` |
//! | 24 a cancel does not hit the next owner of a descriptor's number | `../process.rs`: `reused_descriptors_are_not_cancelled`, `dropping_operations_at_random_moments_leaks_nothing` |
//! | 25 a bundle's buffers are identified when it is reaped | `receive`: `bundles_that_are_looked_at_late_are_exact`, `receiving_once_brings_what_was_asked_for`; `traffic` with small rings |
//!
//! Not met by this crate: 4, 16 (UDP comes later), 14 (no links), 17 (no zero-copy sends), 18 and 22 (the
//! kernel's and the supervisor's), 23 (no direct descriptors).

mod datagrams;
mod executor;
mod harness;
mod receive;
mod send;
mod sockets;
mod splice;
mod traffic;
