//! docs/configuration.md says what is true: its reference is the table of keys, its samples are valid, and so are
//! docs/examples.

use ringway_config::{Checked, Source, parse, reference};
use ringway_core::model::{Probe, Speech};
use std::fs;
use std::path::PathBuf;

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

fn check(text: &str) -> Checked {
    let source = Source {
        name: "sample.yaml".to_owned(),
        text: text.to_owned(),
    };
    parse(&[source], &|_| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// The fenced YAML blocks of the page.
fn samples(page: &str) -> Vec<&str> {
    page.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the fence is closed").0)
        .collect()
}

#[test]
fn the_reference_is_the_table_of_keys() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let (before, rest) = text.split_once("<!-- reference:").expect("the marker");
    let (marker, rest) = rest.split_once("-->\n").expect("the marker ends");
    let (_, after) = rest.split_once("<!-- end of reference -->").expect("the end marker");
    let expected = format!(
        "{before}<!-- reference:{marker}-->\n\n{}\n<!-- end of reference -->{after}",
        reference()
    );
    if std::env::var("RINGWAY_GOLDEN").is_ok_and(|value| value == "rewrite") {
        fs::write(page(), &expected).expect("write docs/configuration.md");
    } else {
        assert!(
            text == expected,
            "docs/configuration.md is stale: RINGWAY_GOLDEN=rewrite cargo test -p ringway-config"
        );
    }
}

#[test]
fn every_sample_is_valid_without_warnings() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let samples = samples(&text);
    assert_eq!(samples.len(), 5);
    for sample in samples {
        assert_eq!(check(sample).warnings.to_string(), "");
    }
}

#[test]
fn what_the_complete_sample_shows_as_default_is_the_default() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let shown = check(samples(&text)[1]).model;
    let bare = check(
        r#"session_log: stderr
max_unrouted: 5000
listeners:
  postgres:
    bind: 0.0.0.0:5432
    protocol: tcp
    pool: postgres
    backlog: 4096
    max_connections: 20000
    max_connections_per_client: 500
    connection_rate: 100/s
    allow: [10.0.0.0/8, "2001:db8::/32"]
    deny: 10.6.6.0/24
    protocol_hint: postgres
  redis: { bind: [10.0.0.1:6379, '[2001:db8::1]:6379', unix:/run/ringway/redis.sock], protocol: tcp, pool: redis }
  web:
    bind: 0.0.0.0:443
    protocol: tls
    routes:
      - { alpn: [http/1.1, h2], sni: example.net, pool: web }
      - { alpn: [http/1.1, h2], sni: "*.example.com", pool: web }
      - { sni: www.example.com, pool: web }
    proxy_protocol: { from: [10.0.0.0/8, "2001:db8::/32"] }
  databases: { bind: 0.0.0.0:5433, protocol: tls, starttls: postgres, routes: [{ sni: a.db.example.com, pool: postgres }] }
  dns:
    bind: 0.0.0.0:53
    protocol: udp
    pool: dns
    max_sessions: 20000
    max_sessions_per_client: 2000
    rate: 5000/s
    requests: 100
    responses: 1
    affinity_group: names
pools:
  postgres:
    source: [10.0.0.2, 10.0.0.3]
    queue: { max: 1000 }
    health_check: { port: 5432 }
    backends:
      - 10.0.0.11:5432
      - { address: 10.0.0.12:5432, weight: 2 }
      - { address: 10.0.0.13:5432, max_connections: 200 }
      - { address: 10.0.0.14:5432, backup: true }
  redis:
    balance: ip_hash
    health_check: { protocol: send_expect, send: "PING\r\n", expect: "+PONG" }
    backends: [10.0.1.11:6379, 10.0.1.12:6379, unix:/run/redis/redis.sock]
  web:
    send_proxy: { version: v2, tlvs: [unique_id, alpn, sni] }
    resolve: { servers: [10.0.0.53, "2001:db8::53"] }
    health_check:
      protocol: https
      path: /health
      host: www.example.com
      body: '"ready"'
      tls: { server_name: www.example.com, verify: true, ca: /etc/ssl/example.pem }
    backends: [web.example.com:443, "srv:_https._tcp.example.com"]
  dns: { send_proxy: v2, health_check: dns, backends: [10.0.0.21:53, 10.0.0.22:53] }
"#,
    );
    assert_eq!(shown, bare.model);
}

#[test]
fn the_complete_sample_has_every_key() {
    let text = fs::read_to_string(page()).expect("docs/configuration.md");
    let sample = samples(&text)[1];
    let keys: Vec<String> = reference()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    assert!(keys.len() > 30, "only {} keys in the reference", keys.len());
    for key in keys {
        assert!(
            sample.contains(&format!("{key}:")),
            "{key} is not in the complete sample"
        );
    }
}

#[test]
fn every_example_is_valid_without_warnings() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).expect("docs/examples") {
        let path = entry.expect("entry").path();
        let text = fs::read_to_string(&path).expect("an example");
        assert_eq!(check(&text).warnings.to_string(), "", "{}", path.display());
        assert!(text.starts_with("# "), "{} begins with what it is for", path.display());
        names.push(path.file_name().expect("a name").to_string_lossy().into_owned());
    }
    for name in ["postgresql", "redis", "mysql", "http", "tls"] {
        assert!(
            names.contains(&format!("ringway-{name}.yaml")),
            "{name} is not among {names:?}"
        );
    }
}

/// The probes of the examples are what they are described as.
#[test]
fn the_examples_ask_what_they_say() {
    let probe = |name: &str, pool: usize| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/examples/ringway-{name}.yaml"));
        let model = check(&fs::read_to_string(path).expect("an example")).model;
        let health_check = model.pools[pool].health.check.clone().expect("a health check");
        (health_check.probe, health_check.port)
    };
    assert_eq!(probe("postgresql", 1), (Probe::Tcp, None));
    let (Probe::Http(primary), Some(8_008)) = probe("postgresql", 0) else {
        panic!("Patroni is asked on port 8008")
    };
    assert_eq!(&*primary.path, "/primary");
    let (Probe::Exchange(redis), None) = probe("redis", 0) else {
        panic!("Redis is asked with bytes")
    };
    assert_eq!(
        (&*redis.send, &*redis.expect),
        (b"PING\r\n".as_slice(), b"+PONG".as_slice())
    );
    assert_eq!(probe("mysql", 0), (Probe::Tcp, None));
    assert!(matches!(probe("http", 0), (Probe::Http(http), None) if &*http.path == "/health"));
}

/// The example of TLS routes the names that its comments promise.
#[test]
fn the_example_of_tls_routes_what_it_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/ringway-tls.yaml");
    let model = check(&fs::read_to_string(path).expect("an example")).model;
    let pool = |listener: usize, name: &str, protocols: &[&str]| {
        let Speech::Tls(tls) = &model.listeners[listener].preface.speech else {
            panic!("listener {listener} speaks TLS")
        };
        let protocols = protocols.iter().map(|protocol| protocol.as_bytes());
        let found = tls.routes.find(Some(name), protocols);
        found.map(|pool| model.pools[pool.0].name.to_string())
    };
    for (name, protocols, expected) in [
        ("api.example.net", &["h2", "http/1.1"][..], Some("api")),
        ("example.com", &[], Some("web")),
        ("a.b.example.com", &["h2"], Some("web")),
        ("api.example.com", &["acme-tls/1"], Some("acme")),
        ("www.example.com", &["acme-tls/1"], Some("acme")),
        ("example.org", &["h2"], None),
    ] {
        assert_eq!(pool(0, name, protocols).as_deref(), expected, "{name} {protocols:?}");
    }
    assert_eq!(
        pool(1, "orders.db.example.com", &["postgresql"]).as_deref(),
        Some("orders")
    );
    assert_eq!(pool(1, "db.example.com", &[]), None);
}
