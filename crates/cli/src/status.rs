//! The command `status`: asks a running process what it sees, and shows it as a table or as it came.
//!
//! Called by `main`.

use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::live_screen::{Screen, colours, size};
use ringway_control::status::client::Client;
use ringway_control::status::table;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Between two drawings of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// When nobody knows how wide a line may be: what goes into files and pipes is not cut.
const WIDTH_OF_FILES: usize = 240;

/// Runs the command.
pub(crate) fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(args.admin).map_err(Failure::Client)?;
    if args.watch {
        return watch(&client);
    }
    let text = if args.json {
        let mut document = client.document().map_err(Failure::Ask)?;
        if !document.ends_with('\n') {
            document.push('\n');
        }
        document
    } else {
        table(&client.status().map_err(Failure::Ask)?, width(), colours())
    };
    // Whoever reads may have seen enough.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn width() -> usize {
    if io::stdout().is_terminal() {
        size().width
    } else {
        WIDTH_OF_FILES
    }
}

/// Until Ctrl-C, which ends the process as it ends any other, or until nobody reads. The first answer must come; a
/// process that is started anew later is waited for.
fn watch(client: &Client) -> Result<ExitCode, Failure> {
    let mut answer = Ok(client.status().map_err(Failure::Ask)?);
    let mut screen = Screen::new(io::stdout(), false);
    loop {
        let text = match &answer {
            Ok(status) => table(status, width(), colours()),
            Err(error) => format!("{error}\n"),
        };
        let shown = if io::stdout().is_terminal() {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            screen.draw(&lines, size())
        } else {
            io::stdout().write_all(format!("{text}\n").as_bytes())
        };
        if shown.is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(WATCH_INTERVAL);
        answer = client.status();
    }
}
