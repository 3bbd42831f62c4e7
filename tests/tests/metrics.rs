//! The live metrics page as the tools of others see it: promtool's rules, and a real Prometheus with the alerts of
//! deploy/prometheus.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{open_relays, run};
use ringway_tests::metrics::get;
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, Program};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, say};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn promtool_finds_nothing_to_say_about_the_live_page() {
    let _turn = Turn::start(
        "promtool_finds_nothing_to_say_about_the_live_page",
        Duration::from_secs(60),
    );
    let backend = Backend::start(Behaviour::Echo);
    let nobody = free_v4();
    let (setup, front) = Setup::simple("round_robin", &[&backend.address, &nobody]);
    let ringway = Ringway::start(&setup.pool_key("health_check", "{ interval: 200ms, timeout: 100ms }"));
    // So that there is something of everything.
    let held = run(None, open_relays(&Dial::to(&front), 10, 2)).expect("one backend serves");
    ringway.wait_for_count("ringway_health_checks_total", &[("result", "failed")], 1);
    let (_, page) = ringway.get("/metrics").expect("the admin port answers");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: it is in Debian's package prometheus");
    let mut input = promtool.stdin.take().expect("it is a pipe");
    input.write_all(page.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    drop(held);
    ringway.finish();
}

/// A file of deploy/prometheus with pieces replaced, each of which must be there.
fn rewritten(name: &str, pieces: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/prometheus")
        .join(name);
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (old, new) in pieces {
        assert!(text.contains(old), "{name} has no `{old}`");
        text = text.replace(old, new);
    }
    text
}

/// Prometheus on the stored files, scraping this admin port quickly; `None` where it is not installed.
fn start_prometheus(dir: &Dir, admin: SocketAddr) -> Option<(Program, SocketAddr)> {
    let installed = Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        say("SKIPPED|prometheus|needs the program prometheus (Debian's package prometheus)\n");
        return None;
    }
    let scrape = rewritten(
        "scrape.yaml",
        &[("127.0.0.1:9900", &admin.to_string()), ("15s", "200ms")],
    );
    let config = dir.write("prometheus.yml", &scrape).display().to_string();
    dir.write("rules.yaml", &rewritten("rules.yaml", &[("for: 1m", "for: 400ms")]));
    let Address::Inet(web) = free_v4() else {
        unreachable!("free_v4 gives a port")
    };
    let storage = dir.path("storage");
    let program = Program::start(
        &Launch::default(),
        Path::new("prometheus"),
        &[
            "--config.file",
            &config,
            "--storage.tsdb.path",
            &storage.display().to_string(),
            "--web.listen-address",
            &web.to_string(),
        ],
    );
    Some((program, web))
}

/// The `data` of an answer of Prometheus; `None` while it starts.
fn ask(web: SocketAddr, path: &str) -> Option<Value> {
    let (200, body) = get(web, path).ok()? else { return None };
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    Some(answer["data"].clone())
}

/// Backends of alerts RingwayBackendDown that fire.
fn down(web: SocketAddr) -> Vec<String> {
    let alerts = ask(web, "/api/v1/alerts").unwrap_or_default();
    let is_ours = |alert: &&Value| alert["labels"]["alertname"] == "RingwayBackendDown" && alert["state"] == "firing";
    let backend = |alert: &Value| alert["labels"]["backend"].as_str().expect("a label").to_owned();
    let alerts = alerts["alerts"].as_array().cloned().unwrap_or_default();
    alerts.iter().filter(is_ours).map(backend).collect()
}

#[test]
fn prometheus_scrapes_and_the_alert_of_a_killed_backend_fires() {
    let _turn = Turn::start(
        "prometheus_scrapes_and_the_alert_of_a_killed_backend_fires",
        Duration::from_secs(90),
    );
    let dir = Dir::new();
    let label = free_v4();
    let staying = Backend::start(Behaviour::Echo);
    let killed = Backend::start_on(Behaviour::Echo, label.clone());
    let (setup, _) = Setup::simple("round_robin", &[&staying.address, &killed.address]);
    let setup = setup.pool_key("health_check", "{ interval: 200ms, timeout: 100ms, fails: 2 }");
    let Some((prometheus, web)) = start_prometheus(&dir, setup.admin) else {
        return;
    };
    let ringway = Ringway::start(&setup);
    let up = wait_for(SOON * 4, || {
        let targets = ask(web, "/api/v1/targets?state=active")?;
        (targets["activeTargets"][0]["health"] == "up").then_some(())
    });
    assert!(up.is_some(), "Prometheus scrapes: {}", prometheus.stderr());
    assert_eq!(down(web), Vec::<String>::new(), "nothing fires while all is well");
    drop(killed);
    let fires = wait_for(SOON * 3, || (down(web) == [label.to_string()]).then_some(()));
    assert!(
        fires.is_some(),
        "alerts: {:?}; Prometheus: {}; Ringway: {}",
        ask(web, "/api/v1/alerts"),
        prometheus.stderr(),
        ringway.log()
    );
    // It comes back, and the alert goes.
    let _again = Backend::start_on(Behaviour::Echo, label);
    let gone = wait_for(SOON * 3, || down(web).is_empty().then_some(()));
    assert!(gone.is_some(), "alerts: {:?}", ask(web, "/api/v1/alerts"));
    drop(prometheus);
    ringway.finish();
}
