//! Closed sets of reasons: why a session ended, why a connection was shed or refused, why a connect failed.
//!
//! Each set is declared once; metric labels, log words and blame follow from the table. Never a wildcard arm: a new
//! reason must be placed by hand.

/// Whose doing an end was; decides log level and whether a backend is held responsible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// An ordinary end.
    Nobody,
    /// The client did it.
    Client,
    /// The backend did it.
    Backend,
    /// The operator asked for it.
    Operator,
    /// We did it: a limit of this machine or a bug.
    Local,
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal, $blame:ident;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the metric label `reason`, and the word in logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// Whose doing it was.
            pub const fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)+ }
            }

            /// Position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// Why a relay ended.
    EndReason {
        /// Both sides ended in order.
        Finished = "finished", Nobody;
        /// No byte in either direction for `idle_timeout`.
        IdleTimeout = "idle_timeout", Nobody;
        /// One side ended, the other stayed silent for `half_closed_timeout`.
        HalfClosedTimeout = "half_closed_timeout", Nobody;
        /// UDP: no datagram in either direction for `session_timeout`, or no answer for `unanswered_timeout`.
        SessionTimeout = "session_timeout", Nobody;
        /// The client's kernel sent a reset.
        ClientReset = "client_reset", Client;
        /// The backend's kernel sent a reset.
        BackendReset = "backend_reset", Backend;
        /// The client was not heard of any more (keepalive or `dead_peer_timeout`).
        ClientGone = "client_gone", Client;
        /// The backend was not heard of any more (keepalive or `dead_peer_timeout`).
        BackendGone = "backend_gone", Backend;
        /// Every try to connect to a backend failed.
        ConnectFailed = "connect_failed", Backend;
        /// No backend of the pool could be chosen.
        NoBackend = "no_backend", Backend;
        /// Every usable backend has as many connections as it may, and the pool has no queue.
        BackendsFull = "backends_full", Backend;
        /// Every usable backend has as many connections as it may, and so has the queue.
        QueueFull = "queue_full", Backend;
        /// No backend had room within the queue's timeout.
        QueueTimeout = "queue_timeout", Backend;
        /// Connecting failed for a reason of this machine (descriptors, ports, memory).
        LocalError = "local_error", Local;
        /// The pool's `max_lifetime` was over.
        MaxLifetime = "max_lifetime", Operator;
        /// The backend went down and the pool says `on_backend_down: close`.
        BackendDown = "backend_down", Backend;
        /// UDP: the backend left its pool, and the time that its sessions had to finish was over.
        BackendRemoved = "backend_removed", Operator;
        /// The session was on a backup, and backends that are no backups are well again.
        Failback = "failback", Operator;
        /// It was not known where the connection goes when `routing_timeout` was over.
        RoutingTimeout = "routing_timeout", Client;
        /// The client ended the connection before it was known where it goes.
        ClientLeft = "client_left", Client;
        /// The client's first bytes are no TLS hello, or one that cannot be read.
        BadHello = "bad_hello", Client;
        /// The client's TLS hello is longer than `hello_max`.
        HelloTooLarge = "hello_too_large", Client;
        /// No route matches the client's TLS hello, and there is no fallback.
        NoRoute = "no_route", Client;
        /// A balancer in front sent no PROXY header, or one that cannot be read.
        BadProxyHeader = "bad_proxy_header", Client;
        /// The client's first bytes are no PostgreSQL.
        BadStartup = "bad_startup", Client;
        /// The backend does not speak TLS although its client asked for it (`starttls`).
        StarttlsRefused = "starttls_refused", Backend;
        /// It had waited the longest of those of which it was not known where they go, and there were more than
        /// `max_unrouted`.
        Displaced = "displaced", Local;
        /// The client that the PROXY header names may not connect, or has too many connections; or too many cancel requests
        /// came that have to go to every server.
        Refused = "refused", Client;
        /// Still open when `drain_timeout` was over, or a second signal came.
        DrainDeadline = "drain_deadline", Operator;
        /// A bug of ours ended this connection's task.
        Panicked = "panicked", Local;
    }
}

reasons! {
    /// Why accepting had to pause; clients wait in the kernel's queue meanwhile.
    ShedReason {
        /// `max_connections` of the listener, or of the process, was reached.
        MaxConnections = "max_connections", Local;
        /// Accepting failed because descriptors or memory ran out; the client stays in the backlog.
        Descriptors = "descriptors", Local;
    }
}

reasons! {
    /// Why a connection was closed by reset as soon as it was accepted, before anything was read from it.
    RefuseReason {
        /// `allow` and `deny` do not let this address in.
        Denied = "denied", Client;
        /// Its client has as many connections as `max_connections_per_client` allows.
        ClientConnections = "client_connections", Client;
        /// Its client's connections come faster than `connection_rate` allows.
        ClientRate = "client_rate", Client;
        /// Connections must come from a trusted proxy (`proxy_protocol.from`), and this one does not.
        UntrustedProxy = "untrusted_proxy", Client;
    }
}

reasons! {
    /// Why a datagram was not passed on. Nobody is told: an answer of our own could be sent to whoever was named as the
    /// sender.
    DropReason {
        /// It came from one of our own addresses, or from a backend that is none of its session's.
        Loop = "loop", Client;
        /// A PROXY header must say who the client is, and its sender is not one who may (`proxy_protocol.from`).
        UntrustedProxy = "untrusted_proxy", Client;
        /// It begins with no PROXY header where one must be, or with one that cannot be read, or with one where none may be.
        BadProxyHeader = "bad_proxy_header", Client;
        /// `allow` and `deny` do not let its sender open a session.
        Denied = "denied", Client;
        /// Its sender sends more than `rate` allows.
        Rate = "rate", Client;
        /// It would open a session, and there are as many as there may be.
        MaxSessions = "max_sessions", Local;
        /// It would open a session, and its sender has as many as one may have.
        ClientSessions = "client_sessions", Client;
        /// It would open a session, and so would many others that came with it: established sessions are served first.
        Burst = "burst", Client;
        /// No backend could be chosen.
        NoBackend = "no_backend", Backend;
        /// It would open a session, and every usable backend has as many as it may.
        BackendsFull = "backends_full", Backend;
        /// It would open a session, and this process is about to end.
        Draining = "draining", Operator;
        /// No socket could be made for its session (descriptors, ports, memory).
        LocalError = "local_error", Local;
        /// With the PROXY header in front it would be longer than a datagram can be.
        TooLong = "too_long", Client;
        /// The kernel had no room to send it.
        SendFull = "send_full", Local;
        /// The kernel had no room to keep it until we took it.
        ReceiveFull = "receive_full", Local;
        /// Sending it failed otherwise.
        SendFailed = "send_failed", Backend;
        /// It came for a session that was over.
        Late = "late", Backend;
        /// It was longer than a datagram can be, and its end was lost.
        Truncated = "truncated", Local;
    }
}

reasons! {
    /// Why one try to connect to a backend failed.
    ConnectError {
        /// The backend's kernel refused (ECONNREFUSED, or a missing UNIX socket).
        Refused = "refused", Backend;
        /// Nothing answered within `connect_timeout`.
        Timeout = "timeout", Backend;
        /// The network said it cannot be reached (EHOSTUNREACH, ENETUNREACH).
        Unreachable = "unreachable", Backend;
        /// The connection was reset while it was being made.
        Reset = "reset", Backend;
        /// It does not speak TLS although its client asked for it (`starttls`).
        NoTls = "no_tls", Backend;
        /// An error of our own (EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM); never counts against a backend.
        Local = "local", Local;
        /// Any other error of connect(2).
        Other = "other", Backend;
    }
}

/// One half of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards the client.
    Client,
    /// Towards the backend.
    Backend,
}
