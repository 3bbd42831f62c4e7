//! The keys of a listener that are particular to UDP.

use crate::diagnostic::quote;
use crate::fields::Fields;
use crate::limits::{DATAGRAMS, MAX_CONNECTIONS, RATE, RECEIVE_BUFFER, SESSION_TIMEOUT, UNANSWERED_TIMEOUT};
use crate::problem::Fault;
use crate::raw::Udp;
use crate::values::word::{self, Choice};
use crate::values::{number, size};
use ringway_core::model::Affinity;

const AFFINITIES: [Choice<Affinity>; 3] = [
    Choice {
        name: "session",
        aliases: &[],
        value: Affinity::Session,
    },
    Choice {
        name: "client_ip",
        aliases: &["source_ip"],
        value: Affinity::ClientIp,
    },
    Choice {
        name: "none",
        aliases: &[],
        value: Affinity::None,
    },
];

pub(super) fn decode(fields: &mut Fields<'_, '_, '_>) -> Udp {
    Udp {
        session_timeout: fields.duration("session_timeout", SESSION_TIMEOUT),
        unanswered_timeout: fields.duration("unanswered_timeout", UNANSWERED_TIMEOUT),
        max_sessions: fields.number("max_sessions", MAX_CONNECTIONS),
        max_sessions_per_client: fields.number("max_sessions_per_client", MAX_CONNECTIONS),
        rate: fields.value("rate", parse_rate),
        requests: fields.number("requests", DATAGRAMS),
        responses: fields.number("responses", DATAGRAMS),
        keep_port: fields.value("keep_port", number::parse_bool),
        affinity: fields.value("affinity", |text| word::choose(text, &AFFINITIES, &[])),
        receive_buffer: fields.value("receive_buffer", |text| {
            size::parse_power_of_two(text, RECEIVE_BUFFER).map(|bytes| bytes as u32)
        }),
    }
}

/// `1000/s`.
fn parse_rate(text: &str) -> Result<u32, Fault> {
    let Some(number) = text.strip_suffix("/s") else {
        let help = "write datagrams per second, such as 1000/s";
        return Err(Fault::new(format!("{} is not a rate", quote(text)), help));
    };
    let number = number::parse(number, RATE).map_err(|fault| Fault {
        help: format!("write {}/s to {}/s", RATE.min, RATE.max),
        ..fault
    })?;
    Ok(number as u32)
}
