//! How many workers run and on which cores: the affinity mask that the process inherited, capped by the CPU quota of its
//! cgroup.
//!
//! Reading the machine ([`Machine::read`]) and deciding ([`place`]) are apart; `place` is pure. Called by `supervisor`
//! once, at start.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use ringway_core::model::Workers;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// What this machine lets the process use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores of the affinity mask, ascending; empty if it cannot be read (then nothing is pinned).
    pub cores: Vec<usize>,
    /// How many cores there are to use; the length of `cores` unless that is empty.
    pub core_count: usize,
    /// The tightest quota of the cgroup and its parents.
    pub quota: Option<Quota>,
}

/// CPU time that a cgroup may use per period, both in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Above 0.
    pub quota_us: u64,
    /// Above 0.
    pub period_us: u64,
}

impl Quota {
    /// Whole cores that use the quota up; a started core counts.
    pub fn cores(self) -> usize {
        usize::try_from(self.quota_us.div_ceil(self.period_us)).unwrap_or(usize::MAX)
    }
}

/// Which worker runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One entry per worker: the core it is pinned to, `None`: not pinned.
    pub pinned_to: Vec<Option<usize>>,
    /// Why it is that many and why they are pinned or not, for the log.
    pub reason: String,
}

/// Decides. Under a quota that is smaller than the mask nothing is pinned: the mask is then shared with other
/// containers, and all of them would pick its first cores.
pub fn place(workers: Workers, pin: bool, machine: &Machine) -> Placement {
    let cores = machine.core_count;
    let quota = machine.quota.map(Quota::cores).filter(|&quota| quota < cores);
    let (count, mut reason) = match (workers, quota) {
        (Workers::Count(count), _) => (usize::from(count), "as configured".to_owned()),
        (Workers::Auto, Some(quota)) => (quota.max(1), format!("the cgroup's CPU quota on {cores} cores")),
        (Workers::Auto, None) => (cores.max(1), format!("one per core of the affinity mask ({cores})")),
    };
    let unpinned = if !pin {
        Some("pin is off")
    } else if quota.is_some() {
        Some("a CPU quota below the number of cores is in force")
    } else if machine.cores.is_empty() {
        Some("the affinity mask cannot be read")
    } else {
        None
    };
    if let Some(why) = unpinned {
        reason.push_str("; not pinned: ");
        reason.push_str(why);
        return Placement {
            pinned_to: vec![None; count],
            reason,
        };
    }
    reason.push_str("; pinned");
    Placement {
        pinned_to: (0..count)
            .map(|worker| Some(machine.cores[worker % machine.cores.len()]))
            .collect(),
        reason,
    }
}

impl Machine {
    /// Asks the kernel. What cannot be read counts as absent.
    pub fn read() -> Self {
        let cores = affinity_mask();
        let core_count = if cores.is_empty() {
            std::thread::available_parallelism().map_or(1, NonZero::get)
        } else {
            cores.len()
        };
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            cores,
            core_count,
            quota: tightest_quota(Path::new("/sys/fs/cgroup"), &memberships),
        }
    }
}

fn affinity_mask() -> Vec<usize> {
    let Ok(mask) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&core| mask.is_set(core).unwrap_or(false))
        .collect()
}

/// Looks at the process's cgroup and every parent under `mount`, in both hierarchies. A container often sees a path
/// that only exists outside of it; its own quota is then at the mount's root, which is a parent too.
fn tightest_quota(mount: &Path, memberships: &str) -> Option<Quota> {
    let mut quotas = Vec::new();
    for line in memberships.lines() {
        // hierarchy-ID:controller-list:cgroup-path (cgroups(7))
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty() {
            for folder in upwards(mount.to_owned(), path) {
                quotas.extend(read(&folder.join("cpu.max")).and_then(|text| quota_v2(&text)));
            }
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for root in [mount.join("cpu"), mount.join(controllers)] {
                for folder in upwards(root, path) {
                    let quota = read(&folder.join("cpu.cfs_quota_us"));
                    let period = read(&folder.join("cpu.cfs_period_us"));
                    quotas.extend(quota.zip(period).and_then(|(quota, period)| quota_v1(&quota, &period)));
                }
            }
        }
    }
    quotas
        .into_iter()
        .min_by_key(|quota| u128::from(quota.quota_us) * 1_000_000 / u128::from(quota.period_us))
}

fn upwards(root: PathBuf, path: &str) -> Vec<PathBuf> {
    let inside = Path::new(path.trim_start_matches('/'));
    // The path comes from the kernel; ".." appears in it when the cgroup lies outside of the namespace's root.
    if inside.components().any(|part| part == std::path::Component::ParentDir) {
        return vec![root];
    }
    inside.ancestors().map(|part| root.join(part)).collect()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// `cpu.max` of cgroup v2: "QUOTA PERIOD" or "max PERIOD".
fn quota_v2(text: &str) -> Option<Quota> {
    let (quota, period) = text.trim().split_once(' ')?;
    quota_of(quota, period)
}

/// `cpu.cfs_quota_us` (-1: none) and `cpu.cfs_period_us` of cgroup v1.
fn quota_v1(quota: &str, period: &str) -> Option<Quota> {
    quota_of(quota.trim(), period.trim())
}

fn quota_of(quota: &str, period: &str) -> Option<Quota> {
    let (quota_us, period_us) = (quota.parse().ok()?, period.parse().ok()?);
    (quota_us > 0 && period_us > 0).then_some(Quota { quota_us, period_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: &[usize], quota_us: Option<u64>) -> Machine {
        let quota = quota_us.map(|quota_us| Quota {
            quota_us,
            period_us: 100_000,
        });
        Machine {
            cores: cores.to_vec(),
            core_count: cores.len(),
            quota,
        }
    }

    fn pinned(workers: Workers, pin: bool, machine: &Machine) -> Vec<Option<usize>> {
        place(workers, pin, machine).pinned_to
    }

    #[test]
    fn auto_is_one_worker_per_core_of_the_mask_each_on_its_own() {
        let placement = place(Workers::Auto, true, &machine(&[2, 3, 7], None));
        assert_eq!(placement.pinned_to, [Some(2), Some(3), Some(7)]);
        assert_eq!(placement.reason, "one per core of the affinity mask (3); pinned");
    }

    #[test]
    fn a_quota_caps_auto_rounded_up_and_unpins() {
        // quota of 100,000 µs per 100,000 µs is one core
        for (quota_us, workers) in [(1_000, 1), (100_000, 1), (100_001, 2), (150_000, 2), (399_999, 4)] {
            let placement = place(Workers::Auto, true, &machine(&[0, 1, 2, 3, 4, 5, 6, 7], Some(quota_us)));
            assert_eq!(placement.pinned_to, vec![None; workers], "{quota_us}");
            assert!(placement.reason.contains("quota"), "{}", placement.reason);
        }
    }

    #[test]
    fn a_quota_of_the_whole_mask_or_more_changes_nothing() {
        for quota_us in [200_000, 150_001, 6_400_000] {
            assert_eq!(
                pinned(Workers::Auto, true, &machine(&[4, 5], Some(quota_us))),
                [Some(4), Some(5)]
            );
        }
    }

    #[test]
    fn a_count_is_obeyed_and_shares_cores_in_turn() {
        assert_eq!(pinned(Workers::Count(1), true, &machine(&[4, 5], None)), [Some(4)]);
        assert_eq!(
            pinned(Workers::Count(3), true, &machine(&[4, 5], None)),
            [Some(4), Some(5), Some(4)]
        );
        assert_eq!(
            pinned(Workers::Count(3), true, &machine(&[4, 5], Some(100_000))),
            [None; 3]
        );
    }

    #[test]
    fn without_pin_or_without_a_mask_nothing_is_pinned() {
        assert_eq!(pinned(Workers::Auto, false, &machine(&[0, 1], None)), [None; 2]);
        let blind = Machine {
            cores: Vec::new(),
            core_count: 4,
            quota: None,
        };
        assert_eq!(pinned(Workers::Auto, true, &blind), [None; 4]);
        let nothing = Machine {
            cores: Vec::new(),
            core_count: 0,
            quota: None,
        };
        assert_eq!(pinned(Workers::Auto, true, &nothing), [None]);
    }

    #[test]
    fn quota_files_are_read_as_the_kernel_writes_them() {
        let quota = |quota_us, period_us| Some(Quota { quota_us, period_us });
        assert_eq!(quota_v2("150000 100000\n"), quota(150_000, 100_000));
        assert_eq!(quota_v2("max 100000\n"), None);
        assert_eq!(quota_v1("50000\n", "100000\n"), quota(50_000, 100_000));
        assert_eq!(quota_v1("-1\n", "100000\n"), None);
        for broken in ["", "\n", "1", "0 100000", "1 0", "a b", "1 2 3"] {
            assert_eq!(quota_v2(broken), None, "{broken:?}");
        }
    }

    /// A folder that removes itself.
    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("ringway-cores-{}-{name}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().expect("has a parent")).expect("makes the folder");
                fs::write(file, text).expect("writes");
            }
            Self(root)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tightest_quota_on_the_way_up_counts() {
        let folder = Folder::with(
            "v2",
            &[("a/cpu.max", "200000 100000\n"), ("a/b/cpu.max", "max 100000\n")],
        );
        let found = tightest_quota(&folder.0, "0::/a/b\n");
        assert_eq!(
            found,
            Some(Quota {
                quota_us: 200_000,
                period_us: 100_000
            })
        );
        assert_eq!(tightest_quota(&folder.0, "0::/other\n"), None);
        assert_eq!(tightest_quota(&folder.0, "0::/../a\n"), None);
        assert_eq!(tightest_quota(&folder.0, "broken\n"), None);
    }

    #[test]
    fn version_1_is_found_at_the_mounts_root_when_the_path_is_of_the_host() {
        let files = [
            ("cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let folder = Folder::with("v1", &files);
        let found = tightest_quota(&folder.0, "12:pids:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n");
        assert_eq!(found.map(Quota::cores), Some(1));
    }

    #[test]
    fn this_machine_has_a_core() {
        let machine = Machine::read();
        assert!(machine.core_count >= 1, "{machine:?}");
    }
}
