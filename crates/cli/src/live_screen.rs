//! Draws lines in place: the next drawing overwrites the one before. No alternate screen, so the last one stays.
//!
//! Owns the cursor while it draws, and gives it back when dropped. Used by `status --watch` and `demo`.

use std::io::{self, IsTerminal, Write};

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Of the terminal at standard output, or what fits most places.
pub(crate) fn size() -> Size {
    // A terminal that does not know its size says 0.
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((width, height)) if width.0 > 0 && height.0 > 0 => Size {
            width: width.0.into(),
            height: height.0.into(),
        },
        _ => Size { width: 80, height: 24 },
    }
}

/// Whether standard output shows colours.
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A place on the terminal that is drawn again and again.
pub(crate) struct Screen<W: Write> {
    out: W,
    /// Of the last drawing.
    size: Option<Size>,
    lines: usize,
    hides_cursor: bool,
}

impl<W: Write> Screen<W> {
    /// Nothing is drawn yet. Whoever lets it hide the cursor must see to it that it is dropped on Ctrl-C.
    pub(crate) const fn new(out: W, hides_cursor: bool) -> Self {
        Self {
            out,
            size: None,
            lines: 0,
            hides_cursor,
        }
    }

    /// Draws over what was drawn last. `lines` must fit the width; those that do not fit the height are left out.
    pub(crate) fn draw(&mut self, lines: &[String], size: Size) -> io::Result<()> {
        let mut text = String::new();
        match self.size {
            None if self.hides_cursor => text.push_str(HIDE_CURSOR),
            None => {}
            // The terminal has broken the old lines anew, nobody knows where they are.
            Some(before) if before != size => text.push_str(CLEAR_ALL),
            Some(_) if self.lines > 0 => text.push_str(&format!("\x1b[{}A\r", self.lines)),
            Some(_) => {}
        }
        // The cursor stands below the last line; if that were off the screen, everything would move up.
        let shown = &lines[..lines.len().min(size.height.saturating_sub(1))];
        for line in shown {
            text.push_str(line);
            text.push_str(CLEAR_LINE);
            text.push('\n');
        }
        text.push_str(CLEAR_BELOW);
        self.size = Some(size);
        self.lines = shown.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if self.hides_cursor && self.size.is_some() {
            // If the terminal is gone, so is its cursor.
            let _ = self.out.write_all(SHOW_CURSOR.as_bytes());
            let _ = self.out.flush();
        }
    }
}

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const CLEAR_ALL: &str = "\x1b[2J\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(hides_cursor: bool, drawings: &[(&[&str], usize)]) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, hides_cursor);
        for (lines, height) in drawings {
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            let size = Size {
                width: 80,
                height: *height,
            };
            screen.draw(&lines, size).expect("memory takes everything");
        }
        drop(screen);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_next_drawing_goes_over_the_last_one() {
        assert_eq!(
            drawn(false, &[(&["a", "b"], 24), (&["c"], 24)]),
            "a\x1b[K\nb\x1b[K\n\x1b[J\x1b[2A\rc\x1b[K\n\x1b[J"
        );
    }

    #[test]
    fn the_cursor_comes_back() {
        assert_eq!(drawn(true, &[(&["a"], 24)]), "\x1b[?25la\x1b[K\n\x1b[J\x1b[?25h");
        assert_eq!(drawn(true, &[]), "", "and is left alone where nothing was drawn");
    }

    #[test]
    fn a_small_window_shows_the_first_lines_and_a_new_size_starts_over() {
        assert_eq!(
            drawn(false, &[(&["a", "b", "c"], 3), (&["a"], 2)]),
            "a\x1b[K\nb\x1b[K\n\x1b[J\x1b[2J\x1b[Ha\x1b[K\n\x1b[J"
        );
    }
}
