//! The live view of the demo: what to try, what every backend gets, what happened.
//!
//! A pure function of a status. Called by `demo`, drawn by `live_screen`.

use crate::live_screen::Size;
use crate::live_ticker::EVENTS_MAX;
use ringway_control::status::grid::{Cell, Column, Grid, Tone};
use ringway_control::status::units::{age, bar, bytes, count, counted, milliseconds_pair, rate};
use ringway_control::status::{BackendStatus, ListenerStatus, PoolStatus, Quantiles, Status, mark};
use std::net::SocketAddr;

/// The lines of the view, which fit into `size`; `events` are the latest, the last one at the end.
pub(crate) fn view(status: &Status, admin: SocketAddr, events: Vec<Cell>, size: Size, colours: bool) -> Vec<String> {
    let lines = |grid: Grid| grid.lines(size.width, colours);
    let mut shown = lines(head(status));
    let tries = lines(what_to_try(status, admin));
    let tables = lines(tables(status));
    let mut events_grid = Grid::new(&[]);
    events.into_iter().for_each(|event| events_grid.line(event));
    let events = lines(events_grid);

    // A row stays free below, for the cursor. What to try goes first, then older events.
    let room = size.height.saturating_sub(1);
    let needed = shown.len() + tables.len() + 1;
    if needed + tries.len() + 1 + EVENTS_MIN <= room {
        shown.extend(tries);
    }
    shown.push(String::new());
    shown.extend(tables);
    let room_for_events = room.saturating_sub(shown.len() + 1).min(EVENTS_MAX);
    if room_for_events > 0 && !events.is_empty() {
        shown.push(String::new());
        shown.extend(
            events
                .iter()
                .skip(events.len().saturating_sub(room_for_events))
                .cloned(),
        );
    }
    shown.truncate(room);
    shown
}

fn head(status: &Status) -> Grid {
    let mut grid = Grid::new(&[]);
    grid.line(Cell::toned(
        format!(
            "ringway demo: {} for {}, {}, {}; Ctrl-C ends it",
            status.phase,
            age(status.uptime_seconds),
            counted(status.workers, "worker"),
            counted(usize::try_from(status.connections).unwrap_or(usize::MAX), "connection"),
        ),
        Tone::Strong,
    ));
    grid
}

/// Commands to copy, and what they show.
pub(crate) fn what_to_try(status: &Status, admin: SocketAddr) -> Grid {
    let mut grid = Grid::new(&[
        Column::text("try"),
        Column::text("what it shows").shrinking_to(10).dispensable(1),
    ]);
    for (listener, pool) in served(status) {
        for address in &listener.bind {
            let shows = match pool.balance.as_str() {
                "round_robin" => "round_robin: backends take turns",
                "least_connections" => "least_connections: whoever has the fewest",
                "ip_hash" => "ip_hash: one client address, one backend",
                other => other,
            };
            grid.row(vec![
                format!("  curl {address}").into(),
                Cell::toned(shows, Tone::Faint),
            ]);
        }
    }
    let metrics = format!("  curl {admin}/metrics");
    grid.row(vec![
        metrics.into(),
        Cell::toned("what Prometheus scrapes", Tone::Faint),
    ]);
    let command = if admin.to_string() == crate::args::ADMIN_DEFAULT {
        "  ringway status".to_owned()
    } else {
        format!("  ringway status --admin {admin}")
    };
    grid.row(vec![command.into(), Cell::toned("all of this and more", Tone::Faint)]);
    grid
}

/// Each listener with its pool.
pub(crate) fn served(status: &Status) -> impl Iterator<Item = (&ListenerStatus, &PoolStatus)> {
    let pool_of = |listener: &ListenerStatus| status.pools.iter().find(|pool| listener.pools.contains(&pool.name));
    status
        .listeners
        .iter()
        .filter_map(move |listener| Some((listener, pool_of(listener)?)))
}

fn tables(status: &Status) -> Grid {
    let mut grid = Grid::new(&[
        Column::text("backend"),
        Column::text("state"),
        Column::number("since").dispensable(1),
        Column::number("conns"),
        Column::number("total").dispensable(2),
        Column::text("of all so far").dispensable(5),
        Column::number("new/s").dispensable(3),
        Column::number("first byte").dispensable(4),
        Column::number("errors").dispensable(6),
        Column::text("why").shrinking_to(20).dispensable(7),
    ]);
    grid.headings();
    for (listener, pool) in served(status) {
        grid.line(Cell::toned(headline(listener, pool), Tone::Strong));
        let total: u64 = pool.backends.iter().map(|backend| backend.connections_total).sum();
        for backend in &pool.backends {
            grid.row(row(backend, total));
        }
    }
    grid
}

fn headline(listener: &ListenerStatus, pool: &PoolStatus) -> String {
    format!(
        "{} {}: {} of {} usable, {} new/s, in {}/s, out {}/s",
        pool.balance,
        listener.bind.join(", "),
        pool.usable,
        pool.backends.len(),
        rate(listener.connections_per_second),
        bytes(listener.bytes_in_per_second),
        bytes(listener.bytes_out_per_second),
    )
}

fn row(backend: &BackendStatus, total: u64) -> Vec<Cell> {
    let (mark, tone) = mark(&backend.condition);
    let part = share_of(backend.connections_total, total);
    let times = |times: Quantiles| milliseconds_pair(times.p50, times.p99);
    let why = if backend.condition == "up" { "" } else { &backend.why };
    // As wide whatever it shows, so that nothing moves from drawing to drawing.
    let blocks = bar(part, BAR);
    let gap = " ".repeat(BAR - blocks.chars().count());
    vec![
        format!("  {}", backend.label).into(),
        Cell::toned(format!("{mark} {:<STATE$}", backend.condition), tone),
        age(backend.for_seconds).into(),
        count(backend.connections).into(),
        count(backend.connections_total).into(),
        format!("{blocks}{gap} {:>3.0}%", part * 100.0).into(),
        rate(backend.connections_per_second).into(),
        backend.first_byte_ms.map_or_else(|| "-".to_owned(), times).into(),
        count(backend.connect_errors).into(),
        Cell::toned(why, tone),
    ]
}

/// Between 0 and 1.
pub(crate) fn share_of(number: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { number as f64 / total as f64 }
}

/// Columns of a bar.
const BAR: usize = 10;
/// The longest condition, `draining`.
const STATE: usize = 8;
/// Rows for events that are worth more than what to try; so many that the demo fits 24 rows with both.
const EVENTS_MIN: usize = 2;

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
