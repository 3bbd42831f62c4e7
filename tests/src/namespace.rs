//! Network namespaces with rules that lose packets; removed when dropped, left-overs of dead runs when made.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const PREFIX: &str = "ringway-test-";

/// A network namespace with a loopback of its own.
#[derive(Debug)]
pub struct Namespace {
    /// As `ip netns` knows it.
    pub name: String,
    door: Door,
}

/// Lets a thread into a namespace.
#[derive(Clone, Debug)]
pub struct Door(Arc<File>);

impl Door {
    /// Moves the calling thread into the namespace; sockets that it makes from then on live there.
    pub fn enter(&self) {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }
}

impl Namespace {
    /// A fresh one; loopback is up, with an MTU of 1,500 bytes so that streams become many packets.
    pub fn new() -> Self {
        remove_left_overs();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "mtu", "1500", "up"]);
        let file = File::open(format!("/run/netns/{name}")).expect("ip made the namespace");
        Self {
            name,
            door: Door(Arc::new(file)),
        }
    }

    /// The way in, for another thread.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// A cable to another namespace: an interface of this name and with these addresses (`10.0.0.1/24`) at each end, up.
    pub fn connect(&self, (name, addresses): (&str, &[&str]), other: &Self, (far, far_addresses): (&str, &[&str])) {
        let ends = ["link", "add", name, "type", "veth", "peer", "name", far];
        run(
            "ip",
            &[&["-n", &self.name][..], &ends, &["netns", &other.name]].concat(),
        );
        for (namespace, end, addresses) in [(self, name, addresses), (other, far, far_addresses)] {
            for address in addresses {
                // Without the search for duplicates an IPv6 address can be used at once.
                let family: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                let add = ["-n", &namespace.name, "address", "add", address, "dev", end];
                run("ip", &[&add[..], family].concat());
            }
            run("ip", &["-n", &namespace.name, "link", "set", end, "up"]);
        }
    }

    /// Runs a command line inside, which must succeed; its output.
    pub fn shell(&self, line: &str) -> String {
        run("ip", &["netns", "exec", &self.name, "sh", "-ec", line])
    }

    /// Drops the packets that match an nftables expression from now on, e.g. `numgen random mod 100 < 3`.
    pub fn drop_packets(&self, rule: &str) {
        let table = "add table inet test; add chain inet test in { type filter hook input priority 0 ; }; ";
        run(
            "ip",
            &[
                "netns",
                "exec",
                &self.name,
                "nft",
                &format!("{table} add rule inet test in {rule} counter drop"),
            ],
        );
    }

    /// Ends every rule of [`Self::drop_packets`]; packets that they counted.
    pub fn drop_nothing(&self) -> u64 {
        let rules = run(
            "ip",
            &["netns", "exec", &self.name, "nft", "list", "table", "inet", "test"],
        );
        run("ip", &["netns", "exec", &self.name, "nft", "delete table inet test"]);
        let counts = rules.split("counter packets ").skip(1);
        counts
            .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Runs `work` on a thread inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let door = self.door();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                door.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure leaves a namespace that the next run removes.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn remove_left_overs() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Runs a command that must succeed; its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run ({error}): install it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} failed: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
