use crate::backend::BackendState;
use crate::cancel::CancelKeys;
use crate::model::{Address, BackendIndex};
use std::hash::RandomState;
use std::sync::Arc;

fn backend(index: usize) -> Arc<BackendState> {
    let address = Address::Inet(([10, 0, 0, 1], 5432).into());
    Arc::new(BackendState::new(BackendIndex(index), address, "b".into(), None, 1))
}

fn issuer(keys: &Arc<CancelKeys<RandomState>>, key: &[u8]) -> Option<usize> {
    keys.issuer(key).map(|backend| backend.index.0)
}

#[test]
fn a_key_is_known_until_its_session_ends() {
    let keys = Arc::new(CancelKeys::new(RandomState::new()));
    let (a, b) = (backend(0), backend(1));
    let first = keys.learn(b"first", &a, 1);
    let second = keys.learn(b"second", &b, 2);
    assert_eq!((issuer(&keys, b"first"), issuer(&keys, b"second")), (Some(0), Some(1)));
    assert_eq!(issuer(&keys, b"third"), None);
    drop(first);
    assert_eq!((issuer(&keys, b"first"), issuer(&keys, b"second")), (None, Some(1)));
    drop(second);
    assert!(keys.is_empty());
}

/// Servers draw them at random: it happens seldom, and must not forget the one that is still used.
#[test]
fn of_two_sessions_with_the_same_key_the_later_one_counts() {
    let keys = Arc::new(CancelKeys::new(RandomState::new()));
    let (a, b) = (backend(0), backend(1));
    let earlier = keys.learn(b"same", &a, 1);
    let later = keys.learn(b"same", &b, 2);
    assert_eq!(issuer(&keys, b"same"), Some(1));
    drop(earlier);
    assert_eq!(issuer(&keys, b"same"), Some(1));
    drop(later);
    assert_eq!((issuer(&keys, b"same"), keys.len()), (None, 0));
}
