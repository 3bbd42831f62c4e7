//! Why a session ended, in words. Closed tables without a wildcard: a new reason must be worded by hand.

use ringway_core::reason::{Blame, EndReason};

/// A plain sentence, without a full stop, in characters that need no escaping.
pub(super) const fn text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Finished => "both sides ended in order",
        EndReason::IdleTimeout => "no byte in either direction for idle_timeout",
        EndReason::HalfClosedTimeout => "one side ended and the other stayed silent for half_closed_timeout",
        EndReason::SessionTimeout => "no datagram in either direction for session_timeout",
        EndReason::ClientReset => "the client reset the connection",
        EndReason::BackendReset => "the backend reset the connection",
        EndReason::ClientGone => "the client was not heard of any more",
        EndReason::BackendGone => "the backend was not heard of any more",
        EndReason::ConnectFailed => "every try to connect to a backend failed",
        EndReason::NoBackend => "no backend of the pool could be chosen",
        EndReason::BackendsFull => "every usable backend has as many connections as it may",
        EndReason::QueueFull => "every usable backend and the queue of the pool are full",
        EndReason::QueueTimeout => "no backend had room within the timeout of the queue",
        EndReason::LocalError => "connecting failed for a reason of this machine: descriptors, ports or memory",
        EndReason::MaxLifetime => "the max_lifetime of the pool was over",
        EndReason::BackendDown => "the backend went down and on_backend_down is close",
        EndReason::BackendRemoved => "the backend left its pool and the time to finish was over",
        EndReason::Failback => "it was on a backup and the other backends are well again",
        EndReason::RoutingTimeout => "routing_timeout was over before it was known where it goes",
        EndReason::ClientLeft => "the client ended it before it was known where it goes",
        EndReason::BadHello => "the first bytes are no TLS hello that can be read",
        EndReason::HelloTooLarge => "the TLS hello is longer than hello_max",
        EndReason::NoRoute => "no route matches the TLS hello and fallback is close",
        EndReason::BadProxyHeader => "the first bytes are no PROXY header that can be read",
        EndReason::BadStartup => "the first bytes are not those of a PostgreSQL client",
        EndReason::StarttlsRefused => "no backend that was tried speaks TLS",
        EndReason::Displaced => "it had waited longest when more than max_unrouted were not routed",
        EndReason::Refused => "allow, deny or a limit keeps the client out now",
        EndReason::DrainDeadline => "it was still open when draining had to end",
        EndReason::Panicked => "a bug in Ringway ended it",
    }
}

/// Whose doing it was, in a word.
pub(super) const fn by(blame: Blame) -> &'static str {
    match blame {
        Blame::Nobody => "nobody",
        Blame::Client => "client",
        Blame::Backend => "backend",
        Blame::Operator => "operator",
        Blame::Local => "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_short_plain_and_differ() {
        let texts: Vec<&str> = EndReason::ALL.iter().map(|&reason| text(reason)).collect();
        for (position, sentence) in texts.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || " _:,".contains(c);
            assert!(sentence.chars().all(plain) && sentence.len() <= 80, "{sentence}");
            assert!(!texts[..position].contains(sentence), "{sentence}");
        }
    }

    #[test]
    fn the_reference_page_has_a_row_for_each_reason() {
        let page = include_str!("../../../../docs/session-log.md");
        for &reason in EndReason::ALL {
            let row = format!("| `{}` | {} | {} |\n", reason.label(), by(reason.blame()), text(reason));
            assert!(page.contains(&row), "docs/session-log.md lacks the row {row}");
        }
    }
}
