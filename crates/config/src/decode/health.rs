//! Tree -> raw configuration: how it is found out which backends are well.
//!
//! Keys of all protocols are read here; which of them go together is for `check` to say.

use crate::fields::{Decoder, narrow};
use crate::keys::Place;
use crate::limits::{
    EJECT, HEALTH_FAILS, HEALTH_INTERVAL, HEALTH_PASSES, HEALTH_TIMEOUT, MAX_EJECTED, PASSIVE_FAILS, PORT, STATUSES_MAX,
};
use crate::problem::Fault;
use crate::raw::{Field, HealthCheck, Passive, ProbeProtocol, ProbeTls};
use crate::source::At;
use crate::tree::{Kind, Node};
use crate::values::word::{self, Choice};
use crate::values::{escape, http, name, number, path};

const PROTOCOLS: [Choice<ProbeProtocol>; 9] = [
    protocol(ProbeProtocol::Tcp),
    protocol(ProbeProtocol::Http),
    protocol(ProbeProtocol::Https),
    protocol(ProbeProtocol::Tls),
    protocol(ProbeProtocol::SendExpect),
    protocol(ProbeProtocol::Udp),
    protocol(ProbeProtocol::Dns),
    protocol(ProbeProtocol::A2s),
    protocol(ProbeProtocol::Quake3),
];

const METHODS: [Choice<&str>; 3] = [method("GET"), method("HEAD"), method("OPTIONS")];

const fn protocol(value: ProbeProtocol) -> Choice<ProbeProtocol> {
    Choice {
        name: value.name(),
        aliases: &[],
        value,
    }
}

const fn method(name: &'static str) -> Choice<&'static str> {
    Choice {
        name,
        aliases: &[],
        value: name,
    }
}

/// `off`, a protocol, or a map.
pub(super) fn health_check(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Option<HealthCheck>>> {
    if let Kind::Scalar { .. } = node.kind {
        let At { value, span } = cx.value(node, "health_check", |text| match text {
            "off" => Ok(None),
            "false" | "no" | "none" => Err(Fault::new(format!("\"{text}\" is not known"), "write off")),
            other => word::choose(other, &PROTOCOLS, &[]).map(Some),
        })?;
        let check = value.map(|value| HealthCheck {
            protocol: Field {
                key: Some(span),
                value: Some(At { value, span }),
            },
            ..HealthCheck::default()
        });
        return Some(At { value: check, span });
    }
    let mut fields = cx.fields(node, Place::HealthCheck, "health_check")?;
    let check = HealthCheck {
        protocol: fields.value("protocol", |text| word::choose(text, &PROTOCOLS, &[])),
        port: fields.number("port", PORT),
        interval: fields.duration("interval", HEALTH_INTERVAL),
        timeout: fields.duration("timeout", HEALTH_TIMEOUT),
        fails: fields.number("fails", HEALTH_FAILS),
        passes: fields.number("passes", HEALTH_PASSES),
        method: fields.value("method", |text| word::choose(text, &METHODS, &[])),
        path: fields.value("path", http::parse_path),
        host: fields.value("host", http::parse_host),
        status: fields.values("status", STATUSES_MAX, http::parse_status),
        body: fields.value("body", body),
        send: fields.value("send", escape::parse),
        expect: fields.value("expect", escape::parse),
        tls: fields.read("tls", tls),
    };
    fields.finish();
    Some(At {
        value: Some(check),
        span: node.span,
    })
}

fn body(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new(
            "is empty",
            "write a text that the body must contain, or remove the key",
        ));
    }
    Ok(text.to_owned())
}

/// `true`, or a map.
fn tls(node: &Node, cx: &mut Decoder<'_>) -> Option<At<ProbeTls>> {
    if let Kind::Scalar { .. } = node.kind {
        return cx.value(node, "health_check.tls", |text| match number::parse_bool(text) {
            Ok(true) => Ok(ProbeTls::default()),
            Ok(false) => Err(Fault::new("false says nothing", "remove it")),
            Err(fault) => Err(Fault {
                help: "write true, or a map such as { server_name: db.example.com }".to_owned(),
                ..fault
            }),
        });
    }
    let mut fields = cx.fields(node, Place::ProbeTls, "health_check.tls")?;
    let tls = ProbeTls {
        server_name: fields.value("server_name", name::parse_server_name),
        verify: fields.value("verify", number::parse_bool),
        authorities: fields.value("ca", path::parse_file),
    };
    fields.finish();
    Some(At {
        value: tls,
        span: node.span,
    })
}

/// Judgement by what connections meet.
pub(super) fn passive(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Passive>> {
    let mut fields = cx.fields(node, Place::Passive, "passive")?;
    let passive = Passive {
        fails: fields.number("fails", PASSIVE_FAILS),
        eject: fields.duration("eject", EJECT),
        max_ejected: fields.value("max_ejected", |text| {
            number::parse_percent(text, MAX_EJECTED).map(narrow)
        }),
    };
    fields.finish();
    Some(At {
        value: passive,
        span: node.span,
    })
}
