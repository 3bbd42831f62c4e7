use crate::reason::{Blame, ConnectError, EndReason, RefuseReason, ShedReason};
use std::collections::HashSet;

/// Labels are a public interface: dashboards name them.
#[test]
fn labels_and_blame_are_as_published() {
    use Blame::{Backend, Client, Local, Nobody, Operator};
    let ended: Vec<_> = EndReason::ALL
        .iter()
        .map(|reason| (reason.label(), reason.blame()))
        .collect();
    assert_eq!(
        ended,
        [
            ("finished", Nobody),
            ("idle_timeout", Nobody),
            ("half_closed_timeout", Nobody),
            ("session_timeout", Nobody),
            ("client_reset", Client),
            ("backend_reset", Backend),
            ("client_gone", Client),
            ("backend_gone", Backend),
            ("connect_failed", Backend),
            ("no_backend", Backend),
            ("backends_full", Backend),
            ("queue_full", Backend),
            ("queue_timeout", Backend),
            ("local_error", Local),
            ("max_lifetime", Operator),
            ("backend_down", Backend),
            ("backend_removed", Operator),
            ("failback", Operator),
            ("routing_timeout", Client),
            ("client_left", Client),
            ("bad_hello", Client),
            ("hello_too_large", Client),
            ("no_route", Client),
            ("bad_proxy_header", Client),
            ("bad_startup", Client),
            ("starttls_refused", Backend),
            ("displaced", Local),
            ("refused", Client),
            ("drain_deadline", Operator),
            ("panicked", Local),
        ]
    );
    let shed: Vec<_> = ShedReason::ALL
        .iter()
        .map(|reason| (reason.label(), reason.blame()))
        .collect();
    assert_eq!(shed, [("max_connections", Local), ("descriptors", Local)]);
    let refused: Vec<_> = RefuseReason::ALL
        .iter()
        .map(|reason| (reason.label(), reason.blame()))
        .collect();
    assert_eq!(
        refused,
        [
            ("denied", Client),
            ("client_connections", Client),
            ("client_rate", Client),
            ("untrusted_proxy", Client),
        ]
    );
}

#[test]
fn errors_of_our_own_never_count_against_a_backend() {
    for &error in ConnectError::ALL {
        let expected = if error == ConnectError::Local {
            Blame::Local
        } else {
            Blame::Backend
        };
        assert_eq!(error.blame(), expected, "{error:?}");
    }
}

#[test]
fn index_is_the_position_and_labels_are_unique_words() {
    assert_eq!(ConnectError::COUNT, 7);
    let labels: HashSet<_> = ConnectError::ALL.iter().map(|error| error.label()).collect();
    assert_eq!(labels.len(), ConnectError::COUNT);
    for (position, error) in ConnectError::ALL.iter().enumerate() {
        assert_eq!(error.index(), position);
        assert!(
            error
                .label()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        );
    }
}
