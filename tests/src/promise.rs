//! The line by which a promise says what was required, what was seen, and whether it held.

use crate::scope::say;

/// One promise of docs/promises.md while its test runs; prints its line at the end, also when the test panics.
pub struct Promise {
    id: &'static str,
    words: &'static str,
    figures: Vec<(String, String, bool)>,
    finished: bool,
}

impl Promise {
    /// A promise by its number, in one's own words.
    pub fn new(id: &'static str, words: &'static str) -> Self {
        Self {
            id,
            words,
            figures: Vec::new(),
            finished: false,
        }
    }

    /// One figure of the promise.
    pub fn figure(&mut self, required: impl Into<String>, seen: impl Into<String>, held: bool) {
        self.figures.push((required.into(), seen.into(), held));
    }

    /// A figure that must be at most `limit`.
    pub fn at_most<T: PartialOrd + std::fmt::Display>(&mut self, what: &str, seen: T, limit: T) {
        let held = seen <= limit;
        self.figure(format!("{what} at most {limit}"), format!("{seen}"), held);
    }

    /// A figure that must be at least `limit`.
    pub fn at_least<T: PartialOrd + std::fmt::Display>(&mut self, what: &str, seen: T, limit: T) {
        let held = seen >= limit;
        self.figure(format!("{what} at least {limit}"), format!("{seen}"), held);
    }

    /// Prints the line and fails the test if a figure did not hold.
    pub fn finish(mut self) {
        self.finished = true;
        let held = self.print();
        assert!(held, "promise {} does not hold: {:#?}", self.id, self.figures);
    }

    fn print(&self) -> bool {
        let held = self.finished && self.figures.iter().all(|figure| figure.2);
        let mark = |figure: &(String, String, bool), text: &str| {
            if figure.2 {
                text.to_owned()
            } else {
                format!("{text} (!)")
            }
        };
        let required: Vec<_> = self.figures.iter().map(|figure| figure.0.clone()).collect();
        let mut seen: Vec<_> = self.figures.iter().map(|figure| mark(figure, &figure.1)).collect();
        if !self.finished {
            seen.push("the test ended early (!)".to_owned());
        }
        let verdict = if held { "pass" } else { "fail" };
        let line = [self.words, &required.join("; "), &seen.join("; ")].map(|field| field.replace(['|', '\n'], " "));
        say(&format!(
            "\nPROMISE|{}|{}|{}|{}|{verdict}\n",
            self.id, line[0], line[1], line[2]
        ));
        held
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.finished {
            self.print();
        }
    }
}
