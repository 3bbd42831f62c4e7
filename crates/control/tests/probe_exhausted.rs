//! Want of descriptors is not the backend's fault. A file of its own: the limit is the process's.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringway_control::probe::{ProbeError, Prober};
use ringway_core::model::{Address, HealthCheck, Probe};
use std::fs::File;
use std::time::Duration;

#[tokio::test]
async fn want_of_descriptors_is_local() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = Address::Inet(listener.local_addr().expect("is bound"));
    let check = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fails: 3,
        passes: 2,
    };
    let prober = Prober::new(&check, None).expect("can be prepared");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("reads the limit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).expect("lowers the limit");
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(hoard.len() > 10, "{}", hoard.len());
    assert_eq!(
        prober.run(&address, None).await,
        Err(ProbeError::Local("too many open files".to_owned()))
    );
    drop(hoard);
    assert!(prober.run(&address, None).await.is_ok());
}
