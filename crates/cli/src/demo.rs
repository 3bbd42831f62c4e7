//! The command `demo`: built-in backends, a balancer in front of them in the same process, and a view of both.
//!
//! The view asks the admin port like anybody else. Everything stays on 127.0.0.1. Called by `main`.

use crate::args::DemoArgs;
use crate::demo_report::{farewell, report};
use crate::failure::Failure;
use crate::live::{view, what_to_try};
use crate::live_screen::{Screen, colours, size};
use crate::live_ticker::Ticker;
use ringway_control::demo::{Backends, CHARACTERS, LoadCounts, start_load};
use ringway_control::model::{
    Address, Backend, Balance, Buffers, Health, HealthCheck, Listener, Model, Passive, Pool, PoolIndex, Probe,
    ProbeHttp, Target, Workers,
};
use ringway_control::status::Status;
use ringway_control::status::client::Client;
use ringway_control::status::grid::{Cell, Grid};
use ringway_control::{logs, supervisor};
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Runs the command: the balancer in this thread, everything else in others.
pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let levels = match &args.log_level {
        Some(levels) => levels.clone(),
        None => logs::Levels::new(),
    };
    let logs = logs::start(logs::Format::Human, levels).map_err(Failure::Log)?;
    let backends = Arc::new(Backends::start(&CHARACTERS).map_err(Failure::Demo)?);
    let ports = Ports::find(args).map_err(Failure::Demo)?;
    let client = Client::new(ports.admin).map_err(Failure::Client)?;
    let (sender, messages) = channel();
    let show = Show {
        client,
        admin: ports.admin,
        load: args.load.then(|| ports.listeners.clone()),
        kill: args.kill_one.then(|| (backends.clone(), sender.clone())),
        drawn: io::stdout().is_terminal() && args.log_level.is_none(),
        messages,
    };
    let show = thread::Builder::new()
        .name("demo-view".to_owned())
        .spawn(move || show.run())
        .map_err(Failure::Demo)?;

    let outcome =
        supervisor::run(model(&ports, backends.addresses()), vec!["the demo".to_owned()], &logs).map_err(Failure::Run);
    // It gives the terminal back before anything else is said. If it has ended already, there is nothing to wait for.
    let _ = sender.send(Message::End);
    let _ = show.join();
    logs.flush();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Where the demo listens.
struct Ports {
    admin: SocketAddr,
    /// Parallel to [`ALGORITHMS`].
    listeners: Vec<SocketAddr>,
}

impl Ports {
    fn find(args: &DemoArgs) -> io::Result<Self> {
        let mut taken = Vec::new();
        let admin = first_free(args.admin, &mut taken)?;
        let mut listeners = Vec::new();
        for offset in (0..).take(ALGORITHMS.len()) {
            // Port 0 is the kernel's choice, three times.
            let port = if args.port == 0 {
                0
            } else {
                args.port.saturating_add(offset)
            };
            listeners.push(first_free((Ipv4Addr::LOCALHOST, port).into(), &mut taken)?);
        }
        Ok(Self { admin, listeners })
    }
}

/// The first address from `wanted` on that nobody listens on. Somebody may still be quicker; then the start fails with
/// a sentence.
fn first_free(wanted: SocketAddr, taken: &mut Vec<SocketAddr>) -> io::Result<SocketAddr> {
    let mut address = wanted;
    for port in (wanted.port()..=u16::MAX).take(PORTS_TRIED_MAX) {
        address.set_port(port);
        if taken.contains(&address) {
            continue;
        }
        match TcpListener::bind(address) {
            Ok(listener) => {
                address = listener.local_addr()?;
                taken.push(address);
                return Ok(address);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{address} cannot be used: {error}"),
                ));
            }
        }
    }
    let text = format!("no port is free from {wanted} to {address}; give another one");
    Err(io::Error::new(io::ErrorKind::AddrInUse, text))
}

/// Ports that are tried before giving up.
const PORTS_TRIED_MAX: usize = 100;

/// One listener and one pool for each.
const ALGORITHMS: [Balance; 3] = [Balance::RoundRobin, Balance::LeastConnections, Balance::IpHash];

fn model(ports: &Ports, backends: &[SocketAddr]) -> Model {
    let listeners = (0..).zip(ALGORITHMS).zip(&ports.listeners);
    Model {
        workers: Workers::Count(2),
        // Beside whatever else this machine does.
        pin: false,
        admin: Some(ports.admin),
        buffers: Buffers {
            count: 256,
            size: 16 * 1024,
        },
        drain_timeout: Duration::from_secs(1),
        ..Model::new(
            listeners
                .map(|((index, balance), &address)| {
                    Listener::new(balance.name(), Address::Inet(address), PoolIndex(index))
                })
                .collect(),
            ALGORITHMS.map(|balance| pool(balance, backends)).into(),
        )
    }
}

fn pool(balance: Balance, backends: &[SocketAddr]) -> Pool {
    let backend = |(character, &address): (&ringway_control::demo::Character, &SocketAddr)| {
        Backend::new(Target::Address(Address::Inet(address)), character.name)
    };
    let backends = CHARACTERS.iter().zip(backends).map(backend);
    Pool {
        balance,
        connect_timeout: Duration::from_secs(2),
        health: health(),
        ..Pool::new(balance.name(), backends.collect())
    }
}

fn health() -> Health {
    Health {
        check: Some(HealthCheck {
            probe: Probe::Http(ProbeHttp {
                method: "GET".into(),
                path: "/health".into(),
                host: None,
                status: vec![(200, 299)],
                body: None,
                tls: None,
            }),
            port: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fails: 2,
            passes: 2,
        }),
        passive: Some(Passive {
            fails: 1,
            eject: Duration::from_secs(1),
            max_ejected: 50,
        }),
        slow_start: None,
        silence: None,
        fail_open: false,
    }
}

/// What the view is told.
enum Message {
    /// To be shown among the events.
    Say(String),
    /// The balancer has ended.
    End,
}

/// The view, with what starts when the balancer answers.
struct Show {
    client: Client,
    admin: SocketAddr,
    /// Listeners to send requests to.
    load: Option<Vec<SocketAddr>>,
    /// Backends of which one is shut again and again, and where that is announced.
    kill: Option<(Arc<Backends>, Sender<Message>)>,
    /// Drawn in place, or told in lines.
    drawn: bool,
    messages: Receiver<Message>,
}

/// Between two looks at the status.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two reports in lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl Show {
    fn run(mut self) {
        let mut ticker = Ticker::default();
        let mut screen = Screen::new(io::stdout(), true);
        let mut last: Option<Status> = None;
        let mut load = None;
        let mut reported: Option<Instant> = None;
        loop {
            // While it starts or ends nobody answers; what was seen last stays.
            if let Ok(status) = self.client.status() {
                if last.is_none() {
                    load = self.start_what_waits(&mut ticker);
                    if !self.drawn {
                        tell(&first_lines(&status, self.admin));
                    }
                }
                ticker.observe(&status);
                if self.drawn {
                    let size = size();
                    let lines = view(&status, self.admin, ticker.lines(), size, colours());
                    end_without_a_reader(screen.draw(&lines, size));
                } else if reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL) {
                    tell(&plain(ticker.take_fresh()));
                    tell(&report(&status));
                    reported = Some(Instant::now());
                }
                last = Some(status);
            }
            match self.messages.recv_timeout(LOOK_INTERVAL) {
                Ok(Message::Say(text)) => ticker.say(last.as_ref().map_or(0, |status| status.uptime_seconds), text),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop(screen);
        if let Some(status) = last {
            tell(&[farewell(&status, load.as_deref())]);
        }
    }

    /// Clients and the killing wait until somebody serves.
    fn start_what_waits(&mut self, ticker: &mut Ticker) -> Option<Arc<LoadCounts>> {
        if let Some((backends, sender)) = self.kill.take() {
            let killing = thread::Builder::new().name("demo-kill".to_owned());
            if let Err(error) = killing.spawn(move || kill_again_and_again(&backends, &sender)) {
                ticker.say(0, format!("no backend will be shut: {error}"));
            }
        }
        match start_load(self.load.take()?) {
            Ok(counts) => Some(counts),
            Err(error) => {
                ticker.say(0, format!("there will be no load: {error}"));
                None
            }
        }
    }
}

/// Until the view has ended.
fn kill_again_and_again(backends: &Backends, sender: &Sender<Message>) {
    let say = |text: String| sender.send(Message::Say(text)).is_ok();
    let name = CHARACTERS[KILLED].name;
    loop {
        thread::sleep(KILL_AFTER);
        backends.set_open(KILLED, false);
        if !say(format!(
            "{name} is being shut for {} s (--kill-one)",
            KILLED_FOR.as_secs()
        )) {
            return;
        }
        thread::sleep(KILLED_FOR);
        backends.set_open(KILLED, true);
        if !say(format!("{name} listens again (--kill-one)")) {
            return;
        }
    }
}

/// Which backend `--kill-one` shuts.
const KILLED: usize = 1;
const KILL_AFTER: Duration = Duration::from_secs(8);
const KILLED_FOR: Duration = Duration::from_secs(12);

fn first_lines(status: &Status, admin: SocketAddr) -> Vec<String> {
    let mut lines = vec!["ringway demo serves; Ctrl-C ends it. Try:".to_owned()];
    lines.extend(what_to_try(status, admin).lines(WIDTH_OF_LINES, false));
    lines
}

fn plain(cells: Vec<Cell>) -> Vec<String> {
    let mut grid = Grid::new(&[]);
    cells.into_iter().for_each(|cell| grid.line(cell));
    grid.lines(WIDTH_OF_LINES, false)
}

fn tell(lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut out = io::stdout();
    end_without_a_reader(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Without its terminal nobody could stop a demo any more, and nobody sees it.
fn end_without_a_reader(told: io::Result<()>) {
    if told.is_err() {
        std::process::exit(0);
    }
}

/// Nobody knows how wide lines in files and pipes may be.
const WIDTH_OF_LINES: usize = 240;
