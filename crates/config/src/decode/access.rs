//! The keys of a listener that say who may use it, and how much of it.

use crate::diagnostic::quote;
use crate::fields::Fields;
use crate::limits::{CONNECTION_RATE, MAX_CONNECTIONS, NETWORKS_MAX};
use crate::problem::Fault;
use crate::raw::{Access, Rate};
use crate::values::network::parse_network;
use crate::values::number;
use std::time::Duration;

pub(super) fn decode(fields: &mut Fields<'_, '_, '_>) -> Access {
    Access {
        allow: fields.values("allow", NETWORKS_MAX, parse_network),
        deny: fields.values("deny", NETWORKS_MAX, parse_network),
        max_connections_per_client: fields.number("max_connections_per_client", MAX_CONNECTIONS),
        connection_rate: fields.value("connection_rate", parse_rate),
    }
}

/// `100/s`, `30/m`.
fn parse_rate(text: &str) -> Result<Rate, Fault> {
    let example = "write connections per second or minute, such as 100/s or 30/m";
    let Some((count, unit)) = text.split_once('/') else {
        return Err(Fault::new(format!("{} is not a rate", quote(text)), example));
    };
    let (per, word) = match unit {
        "s" => (1, "s"),
        "m" => (60, "m"),
        "sec" | "second" | "min" | "minute" => {
            let message = format!("{} has the unit {}", quote(text), quote(unit));
            return Err(Fault::new(message, "write /s or /m").at(count.len() + 1..text.len()));
        }
        _ => return Err(Fault::new(format!("{} is not a rate", quote(text)), example)),
    };
    let number = number::parse(count, CONNECTION_RATE).map_err(|fault| Fault {
        help: format!("write {}/{word} to {}/{word}", CONNECTION_RATE.min, CONNECTION_RATE.max),
        ..fault
    })?;
    Ok(Rate {
        count: number as u32,
        per: Duration::from_secs(per),
    })
}
