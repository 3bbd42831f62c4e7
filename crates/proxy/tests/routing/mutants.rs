//! Deliberate faults, one at a time: the simulation must notice every one of them.

use crate::run_seed;
use ringway_runtime::faults::{Fault, set};
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A fault that has not been noticed by then would not be noticed.
const SEEDS_MAX: u64 = 10_000;

/// The first seed that notices the fault, and how.
fn first_to_notice(fault: Fault) -> Option<(u64, String)> {
    set(Some(fault));
    let found = (1..=SEEDS_MAX).find_map(|seed| run_seed(seed, None).err().map(|failure| (seed, failure)));
    set(None);
    found
}

/// `RINGWAY_SIM_FAULT` names the only one to look for.
fn is_wanted(fault: Fault) -> bool {
    std::env::var("RINGWAY_SIM_FAULT").map_or(true, |name| name == format!("{fault:?}"))
}

#[test]
fn every_fault_is_noticed() {
    // Faults are switched on per thread. Their panics are expected and would drown what is printed here.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let all = Fault::ROUTING.iter().copied();
    let wanted: Vec<_> = all.filter(|&fault| is_wanted(fault)).collect();
    let next = AtomicUsize::new(0);
    let search = || {
        let mut found = Vec::new();
        while let Some(&fault) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((fault, first_to_notice(fault)));
        }
        found
    };
    let found: Vec<_> = thread::scope(|scope| {
        let searches = [scope.spawn(search), scope.spawn(search)];
        let ended = searches.into_iter().filter_map(|search| search.join().ok());
        ended.flatten().collect()
    });
    panic::set_hook(hook);
    assert_eq!(found.len(), wanted.len(), "a search ended early");
    let mut missed = Vec::new();
    for (fault, noticed) in found {
        match noticed {
            Some((seed, failure)) => {
                let how = failure.lines().next().unwrap_or_default().to_owned();
                println!("{fault:?}: {seed} seeds: {how}");
            }
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not noticed within {SEEDS_MAX} seeds: {missed:?}");
}
