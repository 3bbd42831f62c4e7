//! The status as a table for people: listeners, then pools with their backends.
//!
//! A pure function of the document. Called by `ringway status`.

use super::grid::{Cell, Column, Grid, Tone};
use super::units::{age, bytes, count, counted, milliseconds_pair, rate, wrapped};
use super::{BackendStatus, ListenerStatus, PoolStatus, Status};
use std::collections::BTreeMap;

/// The document as text, no line wider than `width`; every line ends with a line break.
pub fn table(status: &Status, width: usize, colours: bool) -> String {
    let mut lines = head(status).lines(width, colours);
    if !status.listeners.is_empty() {
        lines.push(String::new());
        lines.extend(listeners(&status.listeners, width).lines(width, colours));
    }
    if !status.pools.is_empty() {
        lines.push(String::new());
        lines.extend(pools(&status.pools, width).lines(width, colours));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The sign of a condition that is readable without colour, and its colour.
pub fn mark(condition: &str) -> (&'static str, Tone) {
    match condition {
        "up" => ("✓", Tone::Good),
        "down" => ("✗", Tone::Bad),
        "ejected" => ("!", Tone::Warning),
        "draining" => (">", Tone::Faint),
        // Of a newer version.
        _ => ("?", Tone::Plain),
    }
}

fn head(status: &Status) -> Grid {
    let mut grid = Grid::new(&[]);
    let tone = if status.phase == "ready" {
        Tone::Good
    } else {
        Tone::Warning
    };
    grid.line(Cell::toned(
        format!(
            "ringway {}: {} for {}, {}, {} of {} connections",
            status.version,
            status.phase,
            age(status.uptime_seconds),
            counted(status.workers, "worker"),
            count(status.connections),
            count(status.connections_max),
        ),
        tone,
    ));
    if !status.config.is_empty() {
        grid.line(Cell::toned(format!("from {}", status.config.join(", ")), Tone::Faint));
    }
    grid
}

fn listeners(listeners: &[ListenerStatus], width: usize) -> Grid {
    let mut grid = Grid::new(&[
        Column::text("listener").shrinking_to(LABEL_MIN),
        Column::text("bind").shrinking_to(LABEL_MIN).dispensable(2),
        Column::text("pool").shrinking_to(LABEL_MIN).dispensable(3),
        Column::number("conns"),
        Column::number("new/s"),
        Column::number("in/s").dispensable(1),
        Column::number("out/s").dispensable(1),
        Column::number("total").dispensable(4),
    ]);
    grid.headings();
    for listener in listeners {
        let connections = match listener.connections_max {
            Some(max) => format!("{}/{}", count(listener.connections), count(max)),
            None => count(listener.connections),
        };
        grid.row(vec![
            Cell::toned(&listener.name, Tone::Strong),
            bind(listener).into(),
            listener.pools.join(", ").into(),
            connections.into(),
            rate(listener.connections_per_second).into(),
            bytes(listener.bytes_in_per_second).into(),
            bytes(listener.bytes_out_per_second).into(),
            count(listener.connections_total).into(),
        ]);
        notes(&mut grid, &ended(listener), Tone::Faint, width);
        notes(&mut grid, &refused(listener), Tone::Faint, width);
    }
    grid
}

/// Where it listens; UDP is said, because most listeners speak TCP.
fn bind(listener: &ListenerStatus) -> String {
    let suffix = if listener.protocol == "udp" { "/udp" } else { "" };
    let each = |address: &String| format!("{address}{suffix}");
    listener.bind.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// How sessions ended, unless they all did in order.
fn ended(listener: &ListenerStatus) -> String {
    if listener.ended.keys().all(|reason| reason == "finished") {
        return String::new();
    }
    format!("ended: {}", by_reason(&listener.ended))
}

/// What was refused, and why.
fn refused(listener: &ListenerStatus) -> String {
    if listener.refused.is_empty() {
        return String::new();
    }
    format!("refused: {}", by_reason(&listener.refused))
}

fn by_reason(counts: &BTreeMap<String, u64>) -> String {
    let each = |(reason, number): (&String, &u64)| format!("{} {reason}", count(*number));
    counts.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn pools(pools: &[PoolStatus], width: usize) -> Grid {
    let with_whys = backends(pools, width, true);
    if with_whys.natural_width() <= width {
        return with_whys;
    }
    backends(pools, width, false)
}

/// Reasons stand in a column of their own, or, where there is no room for it, under the backends that are not well.
fn backends(pools: &[PoolStatus], width: usize, whys_in_column: bool) -> Grid {
    let mut columns = vec![
        Column::text("backend").shrinking_to(LABEL_MIN),
        Column::text("state"),
        Column::number("since").dispensable(1),
        Column::number("conns"),
        Column::number("new/s").dispensable(2),
        Column::number("in/s").dispensable(3),
        Column::number("out/s").dispensable(3),
        Column::number("connect").dispensable(4),
        Column::number("share").dispensable(5),
    ];
    if whys_in_column {
        columns.push(Column::text("why").dispensable(6));
    }
    let mut grid = Grid::new(&columns);
    grid.headings();
    for pool in pools {
        grid.line(Cell::toned(headline(pool), Tone::Strong));
        for name in &pool.names {
            notes(
                &mut grid,
                &format!("{}: {}", name.name, name.outcome),
                Tone::Faint,
                width,
            );
        }
        let (backups, others): (Vec<_>, Vec<_>) = pool.backends.iter().partition(|backend| backend.backup);
        for backend in others {
            put(&mut grid, backend, whys_in_column, width);
        }
        if !backups.is_empty() {
            grid.line(Cell::toned("  backups", Tone::Faint));
        }
        for backend in backups {
            put(&mut grid, backend, whys_in_column, width);
        }
    }
    grid
}

fn headline(pool: &PoolStatus) -> String {
    let mut line = format!(
        "{}: {}, {} of {} usable",
        pool.name,
        pool.balance,
        pool.usable,
        counted(pool.backends.len(), "backend")
    );
    if pool.on_backups {
        line.push_str(", backups serve");
    }
    if let Some(queue) = &pool.queue {
        line.push_str(&format!(", {} of {} waiting", count(queue.waiting), count(queue.max)));
    }
    if pool.sampled {
        line.push_str(", the better of two drawn ones is chosen (too many to compare all)");
    }
    line
}

fn put(grid: &mut Grid, backend: &BackendStatus, why_in_column: bool, width: usize) {
    let (mark, tone) = mark(&backend.condition);
    let connections = match backend.max_connections {
        Some(max) => format!("{}/{}", count(backend.connections), count(max)),
        None => count(backend.connections),
    };
    let connect = |times: super::Quantiles| milliseconds_pair(times.p50, times.p99);
    let mut cells: Vec<Cell> = vec![
        format!("  {}", backend.label).into(),
        Cell::toned(format!("{mark} {}", backend.condition), tone),
        age(backend.for_seconds).into(),
        connections.into(),
        rate(backend.connections_per_second).into(),
        bytes(backend.bytes_in_per_second).into(),
        bytes(backend.bytes_out_per_second).into(),
        backend.connect_ms.map_or_else(|| "-".to_owned(), connect).into(),
        backend
            .share
            .map_or_else(|| "-".to_owned(), |share| format!("{share:.0}%"))
            .into(),
    ];
    if why_in_column {
        cells.push((&backend.why).into());
    }
    grid.row(cells);
    if !why_in_column && backend.condition != "up" {
        notes(grid, &backend.why, tone, width);
    }
}

/// Lines under a row, further in than it.
fn notes(grid: &mut Grid, text: &str, tone: Tone, width: usize) {
    for line in wrapped(text, width.saturating_sub(NOTE_INDENT).max(LABEL_MIN)) {
        grid.line(Cell::toned(format!("{:NOTE_INDENT$}{line}", ""), tone));
    }
}

/// Labels are cut down to this many columns before columns are left out.
const LABEL_MIN: usize = 12;
const NOTE_INDENT: usize = 4;
