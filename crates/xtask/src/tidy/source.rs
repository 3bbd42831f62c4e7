//! Rust text as tokens with lines, just precise enough for the rules: comments gone, literals opaque.
//!
//! Not a parser: it knows nothing of macros or types, and what it cannot place it passes over.

/// One source file.
pub(super) struct Source {
    /// Relative to the root.
    pub(super) path: String,
    pub(super) lines: usize,
    /// A reason for its length stands at its top.
    pub(super) has_length_reason: bool,
    /// Everything.
    pub(super) tokens: Vec<Token>,
    /// Without items under `#[cfg(test)]`.
    pub(super) product_tokens: Vec<Token>,
    /// Modules declared under `#[cfg(test)]`: their files without `.rs`, which are also the folders of their children.
    pub(super) test_modules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: Text,
    /// From 1.
    pub(super) line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// Identifiers and keywords.
    Word(String),
    Mark(char),
    /// A plain string, as written between its quotes.
    String(String),
    /// Other strings, characters, numbers, lifetimes: no rule looks inside.
    Literal,
}

/// A path like `std::net::TcpStream`, from an expression or from a `use` tree.
pub(super) struct PathAt {
    pub(super) parts: Vec<String>,
    pub(super) line: usize,
    pub(super) in_use: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let (product_tokens, test_modules) = without_tests(&tokens);
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            has_length_reason: text
                .lines()
                .take_while(|l| l.starts_with("//!"))
                .any(|l| l.starts_with("//! Length:")),
            tokens,
            product_tokens,
            test_modules: test_modules.iter().map(|module| module.stem(path)).collect(),
        }
    }
}

impl Token {
    pub(super) fn is_mark(&self, mark: char) -> bool {
        self.text == Text::Mark(mark)
    }

    pub(super) fn word(&self) -> Option<&str> {
        match &self.text {
            Text::Word(word) => Some(word),
            Text::Mark(_) | Text::String(_) | Text::Literal => None,
        }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

/// `mod name;`, possibly with `#[path = "..."]`.
struct Module {
    name: String,
    path: Option<String>,
}

impl Module {
    /// Where its text is, without `.rs` or `/mod.rs`, when it is declared in the file `declared_in`.
    fn stem(&self, declared_in: &str) -> String {
        let (folder, file) = declared_in.rsplit_once('/').unwrap_or(("", declared_in));
        if let Some(path) = &self.path {
            return format!("{folder}/{}", path.trim_end_matches(".rs"));
        }
        match file.trim_end_matches(".rs") {
            "mod" | "lib" | "main" => format!("{folder}/{}", self.name),
            stem => format!("{folder}/{stem}/{}", self.name),
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        rest: text.chars().collect(),
        at: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        // NUL stands for the end: no rule and no branch below accepts it.
        self.rest.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self) {
        if self.peek(0) == '\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    fn push(&mut self, text: Text, line: usize) {
        self.tokens.push(Token { text, line });
    }

    /// `false` at the end.
    fn step(&mut self) -> bool {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            _ if self.at >= self.rest.len() => return false,
            ('/', '/') => {
                while self.at < self.rest.len() && self.peek(0) != '\n' {
                    self.advance();
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(line),
            ('\'', _) => self.quote(line),
            (c, _) if c.is_alphabetic() || c == '_' => self.word(line),
            (c, _) if c.is_ascii_digit() => {
                while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                    self.advance();
                }
                self.push(Text::Literal, line);
            }
            (c, _) => {
                if !c.is_whitespace() {
                    self.push(Text::Mark(c), line);
                }
                self.advance();
            }
        }
        true
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ if self.at >= self.rest.len() => return,
                _ => {
                    self.advance();
                    continue;
                }
            }
            self.advance();
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self, line: usize) {
        self.advance();
        let start = self.at;
        while self.at < self.rest.len() && self.peek(0) != '"' {
            if self.peek(0) == '\\' {
                self.advance();
            }
            self.advance();
        }
        // An escape at the very end of half a file steps over it.
        let end = self.at.min(self.rest.len());
        let written = self.rest[start.min(end)..end].iter().collect();
        self.advance();
        self.push(Text::String(written), line);
    }

    /// Stands on `"` or `#` of `r"`, `r#"`, `br##"`.
    fn raw_string(&mut self, line: usize) {
        let mut hashes = 0;
        while self.peek(0) == '#' {
            hashes += 1;
            self.advance();
        }
        self.advance();
        while self.at < self.rest.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|n| self.peek(n) == '#');
            self.advance();
            if closes {
                (0..hashes).for_each(|_| self.advance());
                break;
            }
        }
        self.push(Text::Literal, line);
    }

    /// A character or a lifetime.
    fn quote(&mut self, line: usize) {
        let is_character = self.peek(1) == '\\' || self.peek(2) == '\'';
        self.advance();
        if is_character {
            if self.peek(0) == '\\' {
                self.advance();
            }
            self.advance();
            while self.at < self.rest.len() && self.peek(0) != '\'' {
                self.advance();
            }
            self.advance();
        } else {
            while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                self.advance();
            }
        }
        self.push(Text::Literal, line);
    }

    fn word(&mut self, line: usize) {
        let mut word = String::new();
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            word.push(self.peek(0));
            self.advance();
        }
        let raw_starts = self.peek(0) == '"' || (self.peek(0) == '#' && matches!(self.peek(1), '"' | '#'));
        match word.as_str() {
            "r" | "br" | "cr" if raw_starts => self.raw_string(line),
            "b" | "c" if self.peek(0) == '"' => self.string(line),
            "b" if self.peek(0) == '\'' => self.quote(line),
            _ => self.push(Text::Word(word), line),
        }
    }
}

/// The tokens without items under `#[cfg(test)]`, and the modules among those items that have own files.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<Module>) {
    let mut kept = Vec::new();
    let mut modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !starts_cfg_test(&tokens[at..]) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let item = end_of_attributes(tokens, at);
        let end = end_of_item(tokens, item);
        if let Some(name) = declared_module(&tokens[item..end]) {
            modules.push(Module {
                name,
                path: path_attribute(&tokens[at..item]),
            });
        }
        at = end;
    }
    (kept, modules)
}

/// `#[cfg(test)]` or `#[cfg(all(test, ...))]`; code under `any(test, ...)` may be shipped.
fn starts_cfg_test(tokens: &[Token]) -> bool {
    let words: Vec<&Token> = tokens.iter().take(8).collect();
    match words[..] {
        [hash, open, cfg, paren, inner, ..] if hash.is_mark('#') && open.is_mark('[') && cfg.is_word("cfg") => {
            let all_test = inner.is_word("all") && words.get(6).is_some_and(|t| t.is_word("test"));
            paren.is_mark('(') && (inner.is_word("test") || all_test)
        }
        _ => false,
    }
}

fn end_of_attributes(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|t| t.is_mark('#')) && tokens.get(at + 1).is_some_and(|t| t.is_mark('[')) {
        at = closing(tokens, at + 1) + 1;
    }
    at
}

/// One past the `;` or the closing brace of the item that starts at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text {
            Text::Mark(';') => return at + 1,
            Text::Mark('{') => return closing(tokens, at) + 1,
            Text::Mark('(' | '[') => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len()
}

/// The value of `#[path = "..."]`.
fn path_attribute(attributes: &[Token]) -> Option<String> {
    attributes.windows(3).find_map(|window| match window {
        [
            path,
            equals,
            Token {
                text: Text::String(value),
                ..
            },
        ] if path.is_word("path") && equals.is_mark('=') => Some(value.clone()),
        _ => None,
    })
}

fn declared_module(item: &[Token]) -> Option<String> {
    let at = item.iter().position(|token| token.is_word("mod"))?;
    let ends = item.get(at + 2)?.is_mark(';');
    item.get(at + 1)?.word().filter(|_| ends).map(str::to_owned)
}

/// The index of the bracket that closes the one at `open`; the last index if there is none.
pub(super) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            Text::Mark('(' | '[' | '{') => depth += 1,
            Text::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// Every path of at least two parts, and every leaf of every `use` tree.
pub(super) fn paths(tokens: &[Token]) -> Vec<PathAt> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is_word("use") {
            at = use_tree(tokens, at + 1, &[], &mut found);
        } else if tokens[at].word().is_some() {
            let (parts, next) = plain_path(tokens, at);
            if parts.len() > 1 {
                found.push(PathAt {
                    parts,
                    line: tokens[at].line,
                    in_use: false,
                });
            }
            at = next;
        } else {
            at += 1;
        }
    }
    found
}

fn is_separator(tokens: &[Token], at: usize) -> bool {
    tokens.get(at).is_some_and(|t| t.is_mark(':')) && tokens.get(at + 1).is_some_and(|t| t.is_mark(':'))
}

fn plain_path(tokens: &[Token], mut at: usize) -> (Vec<String>, usize) {
    let mut parts = Vec::new();
    while let Some(word) = tokens.get(at).and_then(Token::word) {
        parts.push(word.to_owned());
        at += 1;
        if !is_separator(tokens, at) || tokens.get(at + 2).and_then(Token::word).is_none() {
            break;
        }
        at += 2;
    }
    (parts, at)
}

/// Reads one tree and returns the index behind it.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<PathAt>) -> usize {
    let line = tokens.get(at).map_or(0, |token| token.line);
    let mut parts = prefix.to_vec();
    loop {
        if is_separator(tokens, at) {
            at += 2;
        }
        match tokens.get(at).map(|token| &token.text) {
            Some(Text::Word(word)) if word == "as" => at += 2,
            Some(Text::Word(word)) => {
                parts.push(word.clone());
                at += 1;
            }
            Some(Text::Mark('*')) => {
                parts.push("*".to_owned());
                at += 1;
            }
            Some(Text::Mark('{')) => {
                let end = closing(tokens, at);
                at += 1;
                while at < end {
                    at = use_tree(tokens, at, &parts, found).min(end);
                    at += usize::from(tokens[at].is_mark(','));
                }
                return end + 1;
            }
            _ => break,
        }
    }
    if parts.last().is_some_and(|last| last == "self") {
        parts.pop();
    }
    if !parts.is_empty() {
        found.push(PathAt {
            parts,
            line,
            in_use: true,
        });
    }
    // Anything unexpected is passed over, so that the loop above always moves on.
    let stands_on_end = tokens
        .get(at)
        .is_none_or(|t| t.is_mark(',') || t.is_mark('}') || t.is_mark(';'));
    if stands_on_end { at } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_paths(text: &str) -> Vec<String> {
        paths(&tokens(text))
            .into_iter()
            .map(|path| path.parts.join("::"))
            .collect()
    }

    fn words(text: &str) -> Vec<String> {
        tokens(text)
            .iter()
            .filter_map(|token| token.word().map(str::to_owned))
            .collect()
    }

    #[test]
    fn comments_and_literals_hide_their_words() {
        let text = r##"a /* b /* c */ d */ e // f
            "g \" h" r#"i " j"# b"k" 'l' '\'' b'm' 'n: o 1u32 r#type"##;
        assert_eq!(words(text), ["a", "e", "o", "r", "type"]);
    }

    #[test]
    fn lines_survive_comments_and_strings() {
        let found = tokens("a\n/* x\n */ b\n\"y\n\" c");
        let lines: Vec<usize> = found.iter().filter(|t| t.word().is_some()).map(|t| t.line).collect();
        assert_eq!(lines, [1, 3, 5]);
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let text = "use std::net::{IpAddr, self as n, tcp::*}; use a::b as c; x::y(1)";
        let expected = ["std::net::IpAddr", "std::net", "std::net::tcp::*", "a::b", "x::y"];
        assert_eq!(all_paths(text), expected);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "fn a() {} #[cfg(test)] #[allow(x)] mod tests { fn b() { c!(); } } #[cfg(all(test, loom))] mod d; fn e() {}";
        let source = Source::new("crates/core/src/balance.rs", text);
        let left: Vec<&str> = source.product_tokens.iter().filter_map(Token::word).collect();
        assert_eq!(left, ["fn", "a", "fn", "e"]);
        assert_eq!(source.test_modules, ["crates/core/src/balance/d"]);
        let own_path = Source::new(
            "crates/core/src/balance/mod.rs",
            "#[cfg(test)] #[path = \"x_test.rs\"] mod tests;",
        );
        assert_eq!(own_path.test_modules, ["crates/core/src/balance/x_test"]);
    }

    #[test]
    fn half_a_file_ends_too() {
        for text in [
            "use a::{b, ",
            "\"abc",
            "r#\"abc",
            "/* x",
            "'",
            "#[cfg(test)] mod x {",
            "use ;",
            "use a b c;",
        ] {
            let _ = paths(&Source::new("x.rs", text).tokens);
        }
    }
}
