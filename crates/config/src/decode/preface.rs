//! Tree -> raw configuration: what is read from a connection before a backend is chosen, and what backends are told.

use super::name_of_pool;
use crate::diagnostic::quote;
use crate::fields::{Decoder, Fields, narrow};
use crate::keys::Place;
use crate::limits::{HELLO_MAX, NAMES_PER_ROUTE_MAX, NETWORKS_MAX, ROUTES_MAX};
use crate::problem::Fault;
use crate::raw::{Fallback, Field, Hint, Per, Preface, ProxyProtocol, Route, Routes, SendProxy, Tlv};
use crate::source::At;
use crate::tree::{Kind, Node};
use crate::values::word::{self, Choice};
use crate::values::{network, number, server_name, size};
use ringway_core::model::{ProxyVersion, StartTls};

const STARTTLS: [Choice<StartTls>; 1] = [Choice {
    name: "postgres",
    aliases: &["postgresql"],
    value: StartTls::Postgres,
}];

const HINTS: [Choice<Hint>; 1] = [Choice {
    name: "postgres",
    aliases: &["postgresql"],
    value: Hint::Postgres,
}];

const VERSIONS: [Choice<ProxyVersion>; 2] = [
    Choice {
        name: "v1",
        aliases: &["1"],
        value: ProxyVersion::V1,
    },
    Choice {
        name: "v2",
        aliases: &["2"],
        value: ProxyVersion::V2,
    },
];

const TLVS: [Choice<Tlv>; 3] = [
    Choice {
        name: "sni",
        aliases: &["authority"],
        value: Tlv::Sni,
    },
    Choice {
        name: "alpn",
        aliases: &[],
        value: Tlv::Alpn,
    },
    Choice {
        name: "unique_id",
        aliases: &["unique-id"],
        value: Tlv::UniqueId,
    },
];

const PER: [Choice<Per>; 2] = [
    Choice {
        name: "session",
        aliases: &[],
        value: Per::Session,
    },
    Choice {
        name: "datagram",
        aliases: &["packet"],
        value: Per::Datagram,
    },
];

/// Of a listener.
pub(super) fn decode(fields: &mut Fields<'_, '_, '_>) -> Preface {
    Preface {
        routes: fields.read("routes", routes),
        fallback: fields.value("fallback", |text| match text {
            "close" => Ok(Fallback::Close),
            "off" | "none" | "reject" | "reset" => Err(Fault::new(
                format!("{} is not known", quote(text)),
                "write close, or a pool's name",
            )),
            name => name_of_pool(name).map(Fallback::Pool),
        }),
        hello_max: fields.value("hello_max", |text| size::parse(text, HELLO_MAX).map(narrow)),
        starttls: fields.value("starttls", |text| word::choose(text, &STARTTLS, &[])),
        protocol_hint: fields.value("protocol_hint", |text| word::choose(text, &HINTS, &[])),
        proxy_protocol: fields.read("proxy_protocol", |node, cx| {
            cx.map_or_off(node, "proxy_protocol", "{ from: [10.0.0.0/8] }", proxy_protocol)
        }),
    }
}

fn routes(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Routes>> {
    let items = match &node.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Null => &[],
        Kind::Scalar { .. } | Kind::Map(_) => {
            let help = "write a list: each on its own line after a dash, such as - { sni: api.example.com, pool: api }";
            cx.problems.error(node.span, "routes is no list", help);
            return None;
        }
    };
    if !cx.fits(node, items.len(), ROUTES_MAX, "routes") {
        return None;
    }
    let read: Vec<Option<Route>> = items.iter().map(|item| route(item, cx)).collect();
    let partial = read.iter().any(Option::is_none);
    Some(At {
        value: Routes {
            list: read.into_iter().flatten().collect(),
            partial,
        },
        span: node.span,
    })
}

fn route(node: &Node, cx: &mut Decoder<'_>) -> Option<Route> {
    let mut fields = cx.fields(node, Place::Route, "route")?;
    let route = Route {
        span: node.span,
        sni: fields.values("sni", NAMES_PER_ROUTE_MAX, server_name::parse_names),
        alpn: fields.values("alpn", NAMES_PER_ROUTE_MAX, server_name::parse_alpn),
        pool: fields.value("pool", name_of_pool),
    };
    if route.pool.is_absent() {
        fields.missing("pool", "say where these connections go: pool: NAME");
    }
    fields.finish();
    Some(route)
}

fn proxy_protocol(node: &Node, cx: &mut Decoder<'_>) -> Option<At<ProxyProtocol>> {
    let mut fields = cx.fields(node, Place::ProxyProtocol, "proxy_protocol")?;
    let proxy = ProxyProtocol {
        accept: fields.values("accept", VERSIONS.len(), |text| word::choose(text, &VERSIONS, &[])),
        from: fields.values("from", NETWORKS_MAX, network::parse_network),
        per: fields.value("per", |text| word::choose(text, &PER, &[])),
    };
    if proxy.from.is_absent() {
        let help = "anybody could claim to be anybody otherwise: write the networks of the balancers in front, such as from: \
                    [10.0.0.0/8]";
        fields.missing("from", help);
    }
    fields.finish();
    Some(At {
        value: proxy,
        span: node.span,
    })
}

/// Of a pool: `off`, a version, or a map.
pub(super) fn send_proxy(node: &Node, cx: &mut Decoder<'_>) -> Option<At<Option<SendProxy>>> {
    if let Kind::Scalar { .. } = node.kind {
        let version = cx.value(node, "send_proxy", |text| match text {
            "off" => Ok(None),
            "false" | "no" | "none" => Err(Fault::new(format!("{} is not known", quote(text)), "write off")),
            "true" | "yes" | "on" => Err(Fault::new(format!("{} is not known", quote(text)), "write v1 or v2")),
            version => word::choose(version, &VERSIONS, &[]).map(Some),
        })?;
        return Some(At {
            value: version.value.map(|value| SendProxy {
                version: Field {
                    key: Some(node.span),
                    value: Some(At { value, span: node.span }),
                },
                ..SendProxy::default()
            }),
            span: node.span,
        });
    }
    let mut fields = cx.fields(node, Place::SendProxy, "send_proxy")?;
    let send = SendProxy {
        version: fields.value("version", |text| word::choose(text, &VERSIONS, &[])),
        tlvs: fields.values("tlvs", TLVS.len(), |text| word::choose(text, &TLVS, &[])),
        checksum: fields.value("checksum", number::parse_bool),
        per: fields.value("per", |text| word::choose(text, &PER, &[])),
    };
    if send.version.is_absent() {
        fields.missing("version", "write version: v2, or v1");
    }
    fields.finish();
    Some(At {
        value: Some(send),
        span: node.span,
    })
}
