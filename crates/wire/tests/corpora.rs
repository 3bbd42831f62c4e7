//! Every committed input of the fuzz targets for the PROXY protocol and PostgreSQL, replayed.

use ringway_wire::{postgres, proxy};

fn replay(target: &str, body: fn(&[u8])) {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Shown when the body panics.
        println!("{}", path.display());
        body(&std::fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "{replayed} inputs in {folder}");
}

#[test]
fn proxy_headers() {
    replay("fuzz_proxy", proxy::fuzz::fuzz_proxy);
}

#[test]
fn postgres_first_messages() {
    replay("fuzz_startup", postgres::fuzz::fuzz_startup);
}

#[test]
fn postgres_sessions() {
    replay("fuzz_key_watch", postgres::fuzz::fuzz_key_watch);
}
