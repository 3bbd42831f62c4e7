//! What is in `deploy/`: it is read by those who will read it, and says nothing that is not so.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use ringway_tests::address::free_v4;
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::process::{Process, wait_for};
use ringway_tests::program::{Dir, Launch, run};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, say};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use ringway_tests::{binary, client, metrics};
use seccompiler::BpfProgram;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json_of(path: &str) -> Value {
    serde_json::from_str(&text_of(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a tool that must be content.
fn content(program: &str, args: &[&str]) -> String {
    let (status, said) = run(&Launch::default(), program, args, LIMIT);
    assert!(status.success(), "{program} {args:?}: {status}: {said}");
    said
}

// systemd

/// Keys and their values by section; lists keep their order.
fn unit() -> BTreeMap<(String, String), Vec<String>> {
    let (mut section, mut keys) = (String::new(), BTreeMap::<_, Vec<String>>::new());
    for line in text_of("deploy/systemd/ringway.service").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no key: {line}"));
        let place = (section.clone(), key.to_owned());
        keys.entry(place).or_default().push(value.to_owned());
    }
    keys
}

/// systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5): those that this unit has a use for.
const KNOWN_KEYS: &[(&str, &str)] = &[
    ("Unit", "Description Wants After StartLimitIntervalSec"),
    (
        "Service",
        "Type NotifyAccess ExecStartPre ExecStart ExecReload TimeoutStartSec TimeoutStopSec KillSignal KillMode Restart \
         RestartSec RestartPreventExitStatus DynamicUser User RuntimeDirectory LogsDirectory LogsDirectoryMode UMask \
         AmbientCapabilities CapabilityBoundingSet NoNewPrivileges LimitNOFILE LimitMEMLOCK ProtectSystem ProtectHome \
         PrivateTmp PrivateDevices ProtectProc ProtectClock ProtectHostname ProtectKernelLogs ProtectKernelModules \
         ProtectKernelTunables ProtectControlGroups RestrictAddressFamilies SystemCallFilter SystemCallErrorNumber \
         SystemCallArchitectures LockPersonality MemoryDenyWriteExecute RemoveIPC RestrictNamespaces RestrictRealtime \
         RestrictSUIDSGID",
    ),
    ("Install", "WantedBy"),
];

#[test]
fn the_unit_is_consistent() {
    let _turn = Turn::start("the_unit_is_consistent", Duration::from_secs(30));
    let unit = unit();
    for (section, key) in unit.keys() {
        let known = KNOWN_KEYS.iter().find(|(name, _)| name == section);
        let known = known.unwrap_or_else(|| panic!("systemd has no section {section}")).1;
        assert!(known.split_whitespace().any(|name| name == key), "[{section}] {key}=");
    }
    let all = |key: &str| {
        let place = ("Service".to_owned(), key.to_owned());
        unit.get(&place).unwrap_or_else(|| panic!("{key}= is missing")).clone()
    };
    let one = |key: &str| match &all(key)[..] {
        [value] => value.clone(),
        values => panic!("{key}= stands there {} times", values.len()),
    };
    let (program, file) = ("/usr/local/bin/ringway", "/etc/ringway/ringway.yaml");
    assert_eq!(one("ExecStartPre"), format!("-{program} check {file}"));
    let start = one("ExecStart");
    assert_eq!(start, format!("{program} run --config {file} --log-format json"));
    let reload = [format!("{program} check {file}"), "/bin/kill -HUP $MAINPID".to_owned()];
    assert_eq!(all("ExecReload"), reload);
    let readme = text_of("deploy/systemd/README.md");
    for path in [program, file] {
        assert!(readme.contains(path), "the README installs {path}");
    }
    assert_eq!(
        (one("Type"), one("NotifyAccess")),
        ("notify".to_owned(), "main".to_owned())
    );
    assert_eq!(one("RestartPreventExitStatus"), "1 2");
    // drain_delay (0 s) + drain_timeout (30 s) + 1 s, the defaults of docs/configuration.md.
    let stop: u32 = one("TimeoutStopSec").parse().expect("seconds");
    assert!(stop > 31, "{stop}");
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(one(key), "CAP_NET_BIND_SERVICE");
    }
    let calls = all("SystemCallFilter");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        let allowed = calls.iter().filter(|list| !list.starts_with('~'));
        assert!(
            allowed.flat_map(|list| list.split(' ')).any(|name| name == call),
            "{call}"
        );
    }
}

#[test]
fn systemd_reads_the_unit() {
    const TOOL: &str = "/usr/bin/systemd-analyze";
    let _turn = Turn::start("systemd_reads_the_unit", Duration::from_secs(60));
    if !Path::new(TOOL).exists() {
        say("SKIPPED|systemd_reads_the_unit|there is no systemd-analyze here\n");
        return;
    }
    // It wants programs that exist; what it does not know it says and accepts.
    let text = text_of("deploy/systemd/ringway.service").replace("/usr/local/bin/ringway", "/bin/true");
    let dir = Dir::new();
    let file = dir.write("ringway.service", &text).display().to_string();
    assert_eq!(content(TOOL, &["verify", "--man=no", &file]).trim(), "");
    let said = content(
        TOOL,
        &["security", "--offline=true", "--no-pager", "--threshold=20", &file],
    );
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn the_service_manager_is_told() {
    let _turn = Turn::start("the_service_manager_is_told", Duration::from_secs(30));
    let dir = Dir::new();
    let path = dir.path("notify");
    let manager = UnixDatagram::bind(&path).expect("the temporary directory can be written");
    manager.set_read_timeout(Some(SOON)).expect("a socket takes a limit");
    let heard = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let is = |prefix: &str| message.lines().any(|line| line.starts_with(prefix));
            if is(wanted) {
                return;
            }
            assert!(is("STATUS="), "{message:?} comes before {wanted}");
        }
    };
    let (setup, _) = Setup::simple("round_robin", &[&free_v4()]);
    let launch = Launch {
        env: vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())],
        ..Launch::default()
    };
    let ringway = Ringway::start_with(&setup, &launch);
    heard("READY=1");
    ringway.finish();
    heard("STOPPING=1");
}

// The container

#[test]
fn the_container_is_consistent() {
    let _turn = Turn::start("the_container_is_consistent", Duration::from_secs(30));
    let text = text_of("deploy/container/Containerfile").replace("\\\n", " ");
    let words = |instruction: &str| -> Vec<Vec<String>> {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
        lines
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    };
    let copied: BTreeSet<String> = words("COPY").concat().into_iter().collect();
    let workspace = text_of("Cargo.toml");
    let members = workspace
        .lines()
        .find(|line| line.starts_with("members = "))
        .expect("a workspace");
    for member in members.split('"').skip(1).step_by(2) {
        let folder = member.split('/').next().unwrap_or_default();
        assert!(copied.contains(folder), "cargo needs {member} to build anything");
    }
    let program = "/usr/local/bin/ringway";
    assert!(copied.contains(program), "{copied:?}");
    assert_eq!(words("ENTRYPOINT"), [[format!("[\"{program}\"]")]]);
    assert_eq!(words("STOPSIGNAL"), [["SIGTERM"]]);
    assert!(words("HEALTHCHECK").is_empty());
    let user = words("USER").concat().concat();
    let numbers: Vec<u32> = user.split(':').map(|id| id.parse().expect("a number")).collect();
    assert!(
        numbers.len() == 2 && numbers.iter().all(|&id| id > 0),
        "{user} is root, or a name"
    );
}

/// The profile as filters of this machine's architecture: refusals with an errno of their own, and the list of what is
/// allowed, without `leave_out`.
fn filters(leave_out: &str) -> [BpfProgram; 2] {
    let profile = json_of("deploy/container/seccomp.json");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["defaultErrnoRet"], 1, "EPERM");
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for group in profile["syscalls"].as_array().expect("a list") {
        let conditions: Vec<Value> = group["args"].as_array().into_iter().flatten().map(condition).collect();
        let names = group["names"].as_array().expect("a list");
        for name in names.iter().filter(|&name| name != leave_out && exists_here(name)) {
            let rule = if conditions.is_empty() {
                json!({ "syscall": name })
            } else {
                json!({ "syscall": name, "args": conditions })
            };
            match group["action"].as_str().expect("a word") {
                "SCMP_ACT_ALLOW" => allowed.push(rule),
                "SCMP_ACT_ERRNO" => {
                    assert_eq!(group["errnoRet"], 38, "ENOSYS");
                    // The kernel asks every filter and takes the strictest answer: this one's, as the list allows it.
                    allowed.push(rule.clone());
                    refused.push(rule);
                }
                other => panic!("{other} is not understood here"),
            }
        }
    }
    assert!(allowed.len() > 100, "{} names", allowed.len());
    [
        compiled(&refused, &json!({ "errno": 38 }), &json!("allow")),
        compiled(&allowed, &json!("allow"), &json!({ "errno": 1 })),
    ]
}

/// `(argument & value) == valueTwo`, as libseccomp has it.
fn condition(arg: &Value) -> Value {
    assert_eq!(arg["op"], "SCMP_CMP_MASKED_EQ");
    json!({ "index": arg["index"], "type": "qword", "op": { "masked_eq": arg["value"] }, "val": arg["valueTwo"] })
}

/// Container runtimes skip names that an architecture does not have; on x86-64 every one of ours must be real.
fn exists_here(name: &Value) -> bool {
    let rule = [json!({ "syscall": name })];
    let known = compile(&rule, &json!("allow"), &json!({ "errno": 1 })).is_ok();
    assert!(
        known || std::env::consts::ARCH != "x86_64",
        "there is no system call {name}"
    );
    known
}

fn compile(rules: &[Value], matched: &Value, otherwise: &Value) -> Result<BpfProgram, seccompiler::Error> {
    let filter = json!({ "all": { "filter": rules, "match_action": matched, "mismatch_action": otherwise } });
    let arch = std::env::consts::ARCH
        .try_into()
        .expect("seccompiler knows this architecture");
    let mut map = seccompiler::compile_from_json(filter.to_string().as_bytes(), arch)?;
    Ok(map.remove("all").expect("it was asked for"))
}

fn compiled(rules: &[Value], matched: &Value, otherwise: &Value) -> BpfProgram {
    compile(rules, matched, otherwise).unwrap_or_else(|error| panic!("{error}"))
}

fn install(filters: &[BpfProgram; 2]) {
    for filter in filters {
        seccompiler::apply_filter(filter).expect("a process may confine itself");
    }
}

/// `ringway run` under the profile. Filters belong to a thread and are inherited by what it starts; the thread lives as
/// long as its child, which would be killed with it.
struct Confined {
    child: Child,
    admin: SocketAddr,
    files: Dir,
    let_go: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Confined {
    fn start(setup: &Setup, filters: [BpfProgram; 2]) -> Self {
        let files = Dir::new();
        let config = files.write("ringway.yaml", &setup.yaml()).display().to_string();
        let said = |name: &str| File::create(files.path(name)).expect("the temporary directory can be written");
        let mut command: Command = Launch::default().command(binary::ringway(), &["run", "--config", &config]);
        command.stdout(said("stdout")).stderr(said("stderr"));
        let ((tell, told), (let_go, end)) = (channel(), channel::<()>());
        let thread = std::thread::spawn(move || {
            install(&filters);
            tell.send(command.spawn()).expect("the starter waits");
            // Ends when the other side is dropped.
            let _ = end.recv();
        });
        let child = told
            .recv()
            .expect("the thread sends")
            .expect("a confined thread may start programs");
        Self {
            child,
            admin: setup.admin,
            files,
            let_go: Some(let_go),
            thread: Some(thread),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.files.path("stderr")).unwrap_or_default()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn wait_until_ready(&mut self) {
        let ready = wait_for(Duration::from_secs(10), || {
            assert_eq!(self.ended(), None, "{}", self.log());
            metrics::get(self.admin, "/health/ready")
                .is_ok_and(|(status, _)| status == 200)
                .then_some(())
        });
        assert!(ready.is_some(), "not ready within 10 s: {}", self.log());
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.let_go.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

#[test]
fn the_binary_serves_under_the_profile() {
    let _turn = Turn::start("the_binary_serves_under_the_profile", Duration::from_secs(60));
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let mut ringway = Confined::start(&setup, filters(""));
    ringway.wait_until_ready();
    let process = Process(ringway.child.id());
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0)).expect("it runs");
    // proc_pid_status(5): 2 is SECCOMP_MODE_FILTER.
    assert!(status.contains("Seccomp:\t2"), "{status}");
    client::run(None, async {
        for _ in 0..20 {
            let mut wire = Dial::to(&front).connect().await.expect("the listener accepts");
            wire.ping(&[7; 100_000], SOON).await.expect("it relays");
        }
    });
    process.signal(Signal::SIGHUP);
    let (status, page) = metrics::get(ringway.admin, "/metrics").expect("the admin port answers");
    assert_eq!(status, 200, "{page}");
    process.signal(Signal::SIGTERM);
    let ended = wait_for(SOON, || ringway.ended()).unwrap_or_else(|| panic!("it does not stop: {}", ringway.log()));
    assert_eq!(ended.code(), Some(0), "{}", ringway.log());
    assert!(!ringway.log().contains("not permitted"), "{}", ringway.log());
}

#[test]
fn the_profile_refuses_the_rest() {
    let _turn = Turn::start("the_profile_refuses_the_rest", Duration::from_secs(60));
    let allowed = filters("");
    let confined = std::thread::spawn(move || {
        assert_eq!(
            unshare(CloneFlags::empty()),
            Ok(()),
            "without the profile this is nothing"
        );
        install(&allowed);
        assert_eq!(unshare(CloneFlags::empty()), Err(Errno::EPERM));
        // clone3 says ENOSYS, so the C library takes clone.
        let inner = std::thread::spawn(|| unshare(CloneFlags::empty()));
        assert_eq!(inner.join().expect("threads can be made"), Err(Errno::EPERM));
    });
    confined.join().expect("the rest is refused");
    // And the three calls are what it takes.
    let (setup, _) = Setup::simple("round_robin", &[&free_v4()]);
    let mut ringway = Confined::start(&setup, filters("io_uring_setup"));
    let ended = wait_for(SOON, || ringway.ended()).expect("it cannot serve");
    assert_eq!(ended.code(), Some(3), "{}", ringway.log());
    assert!(ringway.log().contains("seccomp"), "{}", ringway.log());
}

// Prometheus and Grafana

/// Every metric that exists, and whether it is a histogram.
fn metrics_that_exist() -> BTreeMap<String, bool> {
    let page = text_of("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `ringway_"));
    let rows = rows.filter_map(|row| row.split_once("` | "));
    let all: BTreeMap<_, _> = rows
        .map(|(name, rest)| (format!("ringway_{name}"), rest.starts_with("histogram")))
        .collect();
    assert!(all.len() > 20, "docs/metrics.md has a table: {all:?}");
    all
}

/// Metrics named in a text.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let part_of_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(move |character| !part_of_name(character))
        .filter(|word| word.starts_with("ringway_"))
}

/// Series in an expression that do not exist; those of a histogram have an end to their names.
fn unknown_series(expression: &str) -> BTreeSet<&str> {
    let all = metrics_that_exist();
    let exists = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .is_some_and(|base| all.get(base) == Some(&true));
        histogram || all.get(name) == Some(&false)
    };
    named(expression).filter(|name| !exists(name)).collect()
}

/// The file as promtool wants to be told it.
fn prometheus(name: &str) -> String {
    project("deploy/prometheus").join(name).display().to_string()
}

#[test]
fn prometheus_reads_its_files_and_alerts_fire() {
    let _turn = Turn::start("prometheus_reads_its_files_and_alerts_fire", Duration::from_secs(120));
    for (check, file) in [("config", "scrape.yaml"), ("rules", "rules.yaml")] {
        let said = content("promtool", &["check", check, &prometheus(file)]);
        assert!(!said.contains("WARNING"), "{said}");
    }
    content("promtool", &["test", "rules", &prometheus("rules_test.yaml")]);
    let rules = text_of("deploy/prometheus/rules.yaml");
    assert_eq!(unknown_series(&rules), BTreeSet::new());
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    let (tests, readme) = (
        text_of("deploy/prometheus/rules_test.yaml"),
        text_of("deploy/prometheus/README.md"),
    );
    for alert in alerts {
        let fires = format!("alertname=\"{alert}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "no test shows {alert} firing");
        assert!(
            readme.contains(&format!("`{alert}`")),
            "the README does not list {alert}"
        );
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let _turn = Turn::start("the_dashboard_asks_for_metrics_that_exist", Duration::from_secs(60));
    let dashboard = json_of("deploy/grafana/ringway.json");
    assert_eq!(dashboard["uid"], "ringway");
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    let variables: Vec<_> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "listener", "pool"]);
    let panels = dashboard["panels"].as_array().expect("a list");
    let of_type = |kind: &str| panels.iter().filter(|panel| panel["type"] == kind).collect::<Vec<_>>();
    let rows: Vec<_> = of_type("row")
        .iter()
        .map(|row| row["title"].as_str().unwrap_or_default())
        .collect();
    let wanted = [
        "Traffic",
        "Backends and health",
        "Latency",
        "Limits and errors",
        "Runtime",
    ];
    assert_eq!(rows, wanted);
    let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        for target in targets.unwrap_or_else(|| panic!("{} shows nothing", panel["title"])) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            let expression = target["expr"].as_str().expect("a text");
            assert_eq!(unknown_series(expression), BTreeSet::new(), "{expression}");
            // Grafana puts a duration there; the other variables stand in texts, where any will do.
            let expression = json!(expression.replace("$__rate_interval", "5m"));
            let row = format!("  - {{ record: \"expression:{}\", expr: {expression} }}\n", rules.len());
            rules += &row;
        }
    }
    let dir = Dir::new();
    let file = dir.write("dashboard.yaml", &rules).display().to_string();
    content("promtool", &["check", "rules", &file]);
}

#[test]
fn pages_name_metrics_that_exist() {
    let _turn = Turn::start("pages_name_metrics_that_exist", Duration::from_secs(30));
    let all = metrics_that_exist();
    for page in ["postgresql", "mysql", "redis", "http"] {
        let page = format!("docs/how-to-{page}.md");
        let text = text_of(&page);
        let unknown: Vec<_> = named(&text).filter(|&name| !all.contains_key(name)).collect();
        assert!(unknown.is_empty(), "{page}: {unknown:?}");
    }
    let expression = "ringway_backend_connect_seconds_bucket{a=\"b\"} + ringway_backend_connect_seconds + ringway_x";
    let unknown = BTreeSet::from(["ringway_backend_connect_seconds", "ringway_x"]);
    assert_eq!(unknown_series(expression), unknown);
}
