//! Aligned columns that never exceed a width: what does not fit is shortened, then left out, by what matters least.
//!
//! Knows nothing of what it shows. Used by tables and views; widths are those of a terminal.

use super::units::{cut_at_the_end, cut_in_the_middle, harmless, width};

/// A colour with a meaning. Never the only sign of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As the terminal writes.
    #[default]
    Plain,
    /// Green.
    Good,
    /// Red.
    Bad,
    /// Yellow.
    Warning,
    /// Less than the rest.
    Faint,
    /// More than the rest.
    Strong,
}

impl Tone {
    /// `text` in this tone, or as it is without colours.
    pub fn paint(self, text: &str, colours: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Bad => 31,
            Self::Warning => 33,
            Self::Faint => 2,
            Self::Strong => 1,
        };
        if colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// In a tone.
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            text: harmless(text.as_ref()),
            tone,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    to_the_right: bool,
    /// Cells may be cut in the middle down to this width.
    shrinks_to: Option<usize>,
    /// Left out when there is no room, the highest first; 0: never.
    dispensable: u8,
}

impl Column {
    /// Text, that stays.
    pub const fn text(heading: &'static str) -> Self {
        Self {
            heading,
            to_the_right: false,
            shrinks_to: None,
            dispensable: 0,
        }
    }

    /// Numbers, that stay.
    pub const fn number(heading: &'static str) -> Self {
        Self {
            to_the_right: true,
            ..Self::text(heading)
        }
    }

    /// Cells may be cut in the middle, but not below this width.
    pub const fn shrinking_to(self, width: usize) -> Self {
        Self {
            shrinks_to: Some(width),
            ..self
        }
    }

    /// May be left out; the highest rank goes first.
    pub const fn dispensable(self, rank: u8) -> Self {
        Self {
            dispensable: rank,
            ..self
        }
    }
}

/// Rows under columns, and lines between them.
#[derive(Clone, Debug)]
pub struct Grid {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
enum Row {
    Cells(Vec<Cell>),
    Line(Cell),
}

/// Columns between columns.
const GAP: usize = 2;

impl Grid {
    /// Without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// The columns' headings, as a row where it is called.
    pub fn headings(&mut self) {
        let heading = |column: &Column| Cell::toned(column.heading, Tone::Faint);
        self.rows.push(Row::Cells(self.columns.iter().map(heading).collect()));
    }

    /// A row, parallel to the columns.
    pub fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(Row::Cells(cells));
    }

    /// A line outside of the columns, cut at its end where there is no room.
    pub fn line(&mut self, line: impl Into<Cell>) {
        self.rows.push(Row::Line(line.into()));
    }

    /// The widest that its rows would need.
    pub fn natural_width(&self) -> usize {
        let kept: Vec<usize> = (0..self.columns.len()).collect();
        total(&self.widths(&kept))
    }

    /// The lines, none wider than `width`, none with blanks at its end.
    pub fn lines(&self, width_max: usize, colours: bool) -> Vec<String> {
        let (kept, widths) = self.layout(width_max);
        let line = |row: &Row| match row {
            Row::Line(cell) => cell.tone.paint(&cut_at_the_end(&cell.text, width_max), colours),
            Row::Cells(cells) => self.joined(cells, &kept, &widths, width_max, colours),
        };
        self.rows.iter().map(line).collect()
    }

    /// Which columns stay, and how wide each of them is.
    fn layout(&self, width_max: usize) -> (Vec<usize>, Vec<usize>) {
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        loop {
            let mut widths = self.widths(&kept);
            let mut excess = total(&widths).saturating_sub(width_max);
            for (width, &column) in widths.iter_mut().zip(&kept) {
                if let Some(least) = self.columns[column].shrinks_to {
                    let less = excess.min(width.saturating_sub(least));
                    *width -= less;
                    excess -= less;
                }
            }
            let rank = |&column: &usize| self.columns[column].dispensable;
            let last = kept.iter().copied().filter(|column| rank(column) > 0).max_by_key(rank);
            match last {
                Some(last) if excess > 0 => kept.retain(|&column| column != last),
                _ => return (kept, widths),
            }
        }
    }

    fn widths(&self, kept: &[usize]) -> Vec<usize> {
        let widest = |&column: &usize| {
            let cells = self.rows.iter().filter_map(|row| match row {
                Row::Cells(cells) => Some(width(&cells[column].text)),
                Row::Line(_) => None,
            });
            cells.max().unwrap_or(0)
        };
        kept.iter().map(widest).collect()
    }

    fn joined(&self, cells: &[Cell], kept: &[usize], widths: &[usize], width_max: usize, colours: bool) -> String {
        let mut line = String::new();
        let mut used = 0;
        for (&column, &cell_width) in kept.iter().zip(widths) {
            let gap = if column == kept[0] { 0 } else { GAP };
            // Only a width that is too small even for what has to stay makes the second limit count.
            let room = cell_width.min(width_max.saturating_sub(used + gap));
            if room == 0 && cell_width > 0 {
                break;
            }
            let cell = &cells[column];
            let text = cut_in_the_middle(&cell.text, room);
            let blanks = room - width(&text);
            let (before, after) = if self.columns[column].to_the_right {
                (blanks, 0)
            } else {
                (0, blanks)
            };
            line.push_str(&" ".repeat(gap + before));
            line.push_str(&cell.tone.paint(&text, colours));
            line.push_str(&" ".repeat(after));
            used += gap + room;
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends() -> Grid {
        let mut grid = Grid::new(&[
            Column::text("backend").shrinking_to(8),
            Column::text("state"),
            Column::number("conns").dispensable(1),
            Column::number("share").dispensable(2),
        ]);
        grid.headings();
        grid.row(vec!["10.0.0.11:5432".into(), "up".into(), "7".into(), "33%".into()]);
        grid.line("pool");
        grid.row(vec!["db".into(), "down".into(), "1,204".into(), "".into()]);
        grid
    }

    #[test]
    fn text_is_to_the_left_and_numbers_to_the_right() {
        assert_eq!(
            backends().lines(80, false),
            [
                "backend         state  conns  share",
                "10.0.0.11:5432  up         7    33%",
                "pool",
                "db              down   1,204",
            ]
        );
    }

    #[test]
    fn labels_shrink_before_columns_go_and_the_least_needed_goes_first() {
        assert_eq!(backends().lines(30, false)[1], "10.0…5432  up         7    33%");
        // 8 + 2 + 5 + 2 + 5 + 2 + 5 = 29 is the least with all columns, 22 without the share.
        assert_eq!(backends().lines(28, false)[1], "10.0.0.11:5432  up         7");
        assert_eq!(backends().lines(22, false)[1], "10.0…432  up         7");
        assert_eq!(backends().lines(21, false)[1], "10.0.0.11:5432  up");
    }

    #[test]
    fn nothing_is_ever_wider_than_asked() {
        for width_max in 0..40 {
            for line in backends().lines(width_max, false) {
                assert!(width(&line) <= width_max, "{width_max}: {line:?}");
            }
        }
    }

    #[test]
    fn colours_take_no_room() {
        let mut grid = Grid::new(&[Column::text("a"), Column::number("b")]);
        grid.row(vec![Cell::toned("up", Tone::Good), "1".into()]);
        grid.row(vec![Cell::toned("down", Tone::Bad), "22".into()]);
        assert_eq!(
            grid.lines(80, true),
            ["\x1b[32mup\x1b[0m     1", "\x1b[31mdown\x1b[0m  22"]
        );
    }

    #[test]
    fn wide_characters_stay_aligned() {
        let mut grid = Grid::new(&[Column::text("a"), Column::number("b")]);
        grid.row(vec!["主系".into(), "1".into()]);
        grid.row(vec!["abc".into(), "2".into()]);
        assert_eq!(grid.lines(80, false), ["主系  1", "abc   2"]);
    }
}
