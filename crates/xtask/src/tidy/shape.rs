//! Lengths of files and functions, and what must not be left behind.

use super::source::{Source, Text, Token, closing};
use super::{Violation, Workspace};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// A test is a script or a table of cases, read from top to bottom; cutting it up rarely helps.
const TEST_LINES_MAX: usize = 150;

/// Longer functions with a reason: file, function. The list may only shrink: one that is no longer too long must go.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

pub(super) fn check_files(workspace: &Workspace) -> Vec<Violation> {
    let long = workspace
        .sources
        .iter()
        .filter(|s| s.lines > FILE_LINES_MAX && !s.has_length_reason);
    long.map(|source| {
        format!(
            "{}: {} lines; split it, or say why not at its top in a line that starts `//! Length:` (over {FILE_LINES_MAX})",
            source.path, source.lines
        )
    })
    .collect()
}

pub(super) fn check_functions(workspace: &Workspace) -> Vec<Violation> {
    check_functions_but(workspace, LONG_FUNCTIONS)
}

fn check_functions_but(workspace: &Workspace, exceptions: &[(&str, &str)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut unused: Vec<&(&str, &str)> = exceptions.iter().collect();
    for source in &workspace.sources {
        let product: &[Token] = if is_product(workspace, source) {
            &source.product_tokens
        } else {
            &[]
        };
        let long_product = functions(product).filter(|f| f.lines > FUNCTION_LINES_MAX);
        let long_test = functions(&source.tokens).filter(|f| f.lines > TEST_LINES_MAX);
        let mut seen = Vec::new();
        for (function, limit) in long_product
            .map(|f| (f, FUNCTION_LINES_MAX))
            .chain(long_test.map(|f| (f, TEST_LINES_MAX)))
        {
            let is_exception = |e: &(&str, &str)| e.0 == source.path && e.1 == function.name;
            unused.retain(|e| !is_exception(e));
            if exceptions.iter().any(is_exception) || seen.contains(&function.line) {
                continue;
            }
            seen.push(function.line);
            violations.push(format!(
                "{}:{}: `{}` has {} lines; {limit} is the limit",
                source.path, function.line, function.name, function.lines
            ));
        }
    }
    violations.extend(unused.iter().map(|(path, name)| {
        format!("{path}: `{name}` is not too long; remove it from LONG_FUNCTIONS of crates/xtask/src/tidy/shape.rs")
    }));
    violations
}

/// Not a file of tests only.
fn is_product(workspace: &Workspace, source: &Source) -> bool {
    source.path.contains("/src/") && !workspace.is_test_module(source)
}

struct Function<'a> {
    name: &'a str,
    line: usize,
    /// From `fn` to the closing brace.
    lines: usize,
}

fn functions(tokens: &[Token]) -> impl Iterator<Item = Function<'_>> {
    (0..tokens.len()).filter_map(move |at| {
        if !tokens[at].is_word("fn") {
            return None;
        }
        // A function pointer's type has no name.
        let name = tokens.get(at + 1)?.word()?;
        let open = body_of(tokens, at + 2)?;
        let line = tokens[at].line;
        Some(Function {
            name,
            line,
            lines: tokens[closing(tokens, open)].line - line + 1,
        })
    })
}

/// The opening brace of the body; `None` for a declaration without one.
fn body_of(tokens: &[Token], mut at: usize) -> Option<usize> {
    loop {
        match tokens.get(at)?.text {
            Text::Mark('{') => return Some(at),
            Text::Mark(';') => return None,
            Text::Mark('(' | '[') => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
}

pub(super) fn check_leftovers(workspace: &Workspace) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in &workspace.sources {
        for window in source.tokens.windows(4) {
            let [first, second, third, fourth] = window else {
                continue;
            };
            let unfinished = first.is_word("todo") || first.is_word("unimplemented");
            if unfinished && second.is_mark('!') {
                violations.push(format!(
                    "{}:{}: unfinished: finish it or leave it out",
                    source.path, first.line
                ));
            }
            let attribute = first.is_mark('#') && second.is_mark('[');
            if attribute && third.is_word("ignore") && fourth.is_mark(']') {
                violations.push(format!(
                    "{}:{}: an ignored test needs a reason: #[ignore = \"why\"]",
                    source.path, first.line
                ));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(text: &str) -> Workspace {
        Workspace::default().with_source("crates/core/src/file.rs", text)
    }

    #[test]
    fn a_long_file_needs_a_reason_at_its_top() {
        let body = "// line\n".repeat(600);
        assert_eq!(check_files(&workspace(&body)), Vec::<String>::new());
        assert_eq!(check_files(&workspace(&format!("{body}// one more\n"))).len(), 1);
        assert_eq!(
            check_files(&workspace(&format!(
                "//! A table.\n//! Length: it is one table.\n{body}"
            ))),
            Vec::<String>::new()
        );
        assert_eq!(
            check_files(&workspace(&format!("{body}//! Length: too late.\n"))).len(),
            1
        );
    }

    #[test]
    fn a_function_of_71_lines_is_too_long() {
        let function = |lines: usize| {
            format!(
                "impl X {{\nfn f(\n a: [u8; 3],\n) -> u8\nwhere T: Fn() {{\n{}}}\n}}",
                "g();\n".repeat(lines - 5)
            )
        };
        assert_eq!(check_functions(&workspace(&function(70))), Vec::<String>::new());
        let violations = check_functions(&workspace(&function(71)));
        assert_eq!(
            violations,
            ["crates/core/src/file.rs:2: `f` has 71 lines; 70 is the limit"]
        );
        let exception = [("crates/core/src/file.rs", "f")];
        assert_eq!(
            check_functions_but(&workspace(&function(71)), &exception),
            Vec::<String>::new()
        );
        assert_eq!(check_functions_but(&workspace(&function(70)), &exception).len(), 1);
    }

    #[test]
    fn tests_may_be_longer_but_not_endless() {
        let test = |lines: usize| {
            format!(
                "#[cfg(test)]\nmod tests {{\nfn t() {{\n{}}}\n}}",
                "g();\n".repeat(lines - 2)
            )
        };
        assert_eq!(check_functions(&workspace(&test(150))), Vec::<String>::new());
        let violations = check_functions(&workspace(&test(151)));
        assert_eq!(
            violations,
            ["crates/core/src/file.rs:3: `t` has 151 lines; 150 is the limit"]
        );
        let elsewhere = Workspace::default().with_source("tests/tests/relay.rs", &test(100));
        assert_eq!(check_functions(&elsewhere), Vec::<String>::new());
    }

    #[test]
    fn declarations_and_pointers_are_not_functions() {
        let text = format!("trait T {{ fn a(&self); }} type P = fn(u8); {}", "\n".repeat(80));
        assert_eq!(check_functions(&workspace(&text)), Vec::<String>::new());
    }

    #[test]
    fn leftovers_are_found_outside_of_comments_and_strings() {
        let clean = "// todo!()\nfn f() { g(\"todo!()\"); }\n#[ignore = \"needs root\"] fn t() {}";
        assert_eq!(check_leftovers(&workspace(clean)), Vec::<String>::new());
        assert_eq!(check_leftovers(&workspace("fn f() { todo!() }")).len(), 1);
        assert_eq!(check_leftovers(&workspace("fn f() { unimplemented!(\"x\") }")).len(), 1);
        assert_eq!(check_leftovers(&workspace("#[test] #[ignore] fn t() {}")).len(), 1);
    }
}
