//! Servers of others that tests put behind the balancer: started, waited for, stopped.

use crate::address::Address;
use crate::process::wait_for;
use crate::program::{Launch, Program, run};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nothing that is asked of a server takes longer, also on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

fn inet(address: &Address) -> SocketAddr {
    match address {
        Address::Inet(address) => *address,
        Address::Unix(path) => panic!("{} has no port", path.display()),
    }
}

/// Starts a server and waits until its port accepts.
pub fn serve(launch: &Launch, program: &str, args: &[&str], address: &Address) -> Program {
    let mut server = Program::start(launch, Path::new(program), args);
    let up = wait_for(Duration::from_secs(20), || {
        let ended = server.ended();
        assert!(
            ended.is_none(),
            "{program} ended at start ({ended:?}); is it installed? {}",
            server.stderr()
        );
        TcpStream::connect(inet(address)).ok()
    });
    assert!(
        up.is_some(),
        "{program} does not accept on {address} after 20 s: {}",
        server.stderr()
    );
    server
}

/// Starts redis without persistence; `more` goes to its command line. What a replica receives passes through a file in
/// `folder`, which is made; a server that is started there again would load it.
pub fn start_redis(folder: &Path, address: &Address, more: &[&str]) -> Program {
    std::fs::create_dir_all(folder).expect("the temporary directory can be written");
    let folder = folder.display().to_string();
    let (ip, port) = (inet(address).ip().to_string(), address.port().to_string());
    let settings = [
        "--port",
        &port,
        "--bind",
        &ip,
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        &folder,
    ];
    serve(
        &Launch::default(),
        "redis-server",
        &[&settings[..], more].concat(),
        address,
    )
}

/// Starts nginx in the foreground with these lines in its only `server`; its files go to this folder, which it makes.
pub fn start_nginx(folder: &Path, address: &Address, server: &str) -> Program {
    std::fs::create_dir_all(folder).expect("the temporary directory can be written");
    let config = format!(
        "daemon off; master_process off; error_log stderr; pid {0}/pid; worker_rlimit_nofile 4096;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; keepalive_requests 1000000;\n\
         client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; \
         scgi_temp_path {0}/s;\n\
         server {{ listen {address}; {server} }} }}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).expect("the temporary directory can be written");
    let file = file.display().to_string();
    serve(&Launch::default(), "nginx", &["-c", &file], address)
}

/// Starts HAProxy in the foreground with these sections, waits for `address`; it logs to its standard output.
pub fn start_haproxy(folder: &Path, address: &Address, sections: &str) -> Program {
    std::fs::create_dir_all(folder).expect("the temporary directory can be written");
    let config = format!(
        "global\n  log stdout format raw local0\n  maxconn 1000\n\
         defaults\n  log global\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{sections}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).expect("the temporary directory can be written");
    let file = file.display().to_string();
    serve(&Launch::default(), "haproxy", &["-db", "-f", &file], address)
}

/// The user that PostgreSQL's servers run as; they refuse to run as root.
pub fn postgres_owner() -> Launch {
    Launch {
        user: Some("postgres".to_owned()),
        ..Launch::default()
    }
}

/// Makes a cluster without a password in this directory, which the owner may write to.
pub fn create_postgres(owner: &Launch, cluster: &str) {
    let initdb = postgres_program("initdb");
    let rules = ["--auth", "trust", "--no-sync", "--username", "postgres"];
    let (status, said) = run(owner, &initdb, &[&["--pgdata", cluster][..], &rules].concat(), LIMIT);
    assert!(status.success(), "initdb: {status}: {said}");
}

/// Debian keeps the server's programs out of the path.
pub fn postgres_program(name: &str) -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.exists());
    found.map_or_else(|| name.to_owned(), |path: PathBuf| path.display().to_string())
}

/// Starts a server on a cluster and waits until it takes sessions.
pub fn start_postgres(owner: &Launch, cluster: &str, address: &Address) -> Program {
    start_postgres_with(owner, cluster, address, &[])
}

/// The same with more on its command line.
pub fn start_postgres_with(owner: &Launch, cluster: &str, address: &Address, more: &[&str]) -> Program {
    let (ip, port) = (inet(address).ip().to_string(), address.port().to_string());
    let place = ["-D", cluster, "-p", &port, "-h", &ip, "-k", cluster];
    let settings = [
        "-c",
        "fsync=off",
        "-c",
        "max_connections=60",
        "-c",
        "shared_buffers=16MB",
    ];
    let program = postgres_program("postgres");
    let server = serve(owner, &program, &[&place[..], &settings, more].concat(), address);
    let probe = postgres_program("pg_isready");
    let asked = ["-q", "-h", &ip, "-p", &port];
    let ready = wait_for(LIMIT, || {
        run(&Launch::default(), &probe, &asked, LIMIT).0.success().then_some(())
    });
    assert!(ready.is_some(), "PostgreSQL is not ready: {}", server.stderr());
    server
}

/// SIGINT is PostgreSQL's fast shutdown.
pub fn stop_postgres(mut server: Program) {
    assert!(
        server.stop(Signal::SIGINT, LIMIT).is_some(),
        "PostgreSQL does not stop: {}",
        server.stderr()
    );
}
