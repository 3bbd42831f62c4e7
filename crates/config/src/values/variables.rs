//! `${NAME}` in values: environment variables, put in after YAML was read, so that their text can never become
//! structure (a line break in a variable does not make a key).

use crate::diagnostic::quote;
use crate::limits::VALUE_BYTES_MAX;
use crate::problem::Fault;

/// The text with its variables put in; `None`: there are none, and no `$${` either.
///
/// `$${` stands for a literal `${`. A variable's text is not searched for variables again.
pub(crate) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Fault> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let begin = text.len() - rest.len() + at;
        if rest[..at].ends_with('$') {
            expanded.push_str(&rest[..at - 1]);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            let help = "write ${NAME}, or $${ for the two characters themselves";
            return Err(Fault::new(format!("{} has a ${{ without }}", quote(text)), help).at(begin..text.len()));
        };
        let part = begin..begin + end + 3;
        let name = &inner[..end];
        if !is_name(name) {
            let help = "write ${NAME} with letters, digits and _; defaults and other forms are not supported";
            return Err(Fault::new(format!("{} is not the name of a variable", quote(name)), help).at(part));
        }
        let Some(value) = env(name) else {
            let help = "set it, or write $${ for the two characters themselves";
            return Err(Fault::new(format!("environment variable {name} is not set"), help).at(part));
        };
        expanded.push_str(&value);
        if expanded.len() > VALUE_BYTES_MAX {
            let help = format!("a value may have {VALUE_BYTES_MAX} bytes");
            return Err(Fault::new(format!("environment variable {name} makes the value too long"), help).at(part));
        }
        rest = &inner[end + 1..];
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("5432".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${PORT}".to_owned()),
            "LONG" => Some("x".repeat(5_000)),
            _ => None,
        }
    }

    #[test]
    fn puts_values_in() {
        let expand = |text| expand(text, &env).expect(text);
        assert_eq!(expand("plain $5 $ {x}"), None);
        assert_eq!(expand("0.0.0.0:${PORT}").as_deref(), Some("0.0.0.0:5432"));
        assert_eq!(expand("${PORT}${EMPTY}${PORT}").as_deref(), Some("54325432"));
        assert_eq!(expand("$${PORT}").as_deref(), Some("${PORT}"));
        assert_eq!(expand("a$${b").as_deref(), Some("a${b"));
        assert_eq!(
            expand("${TRICK}").as_deref(),
            Some("${PORT}"),
            "what a variable holds is not expanded again"
        );
    }

    #[test]
    fn points_at_what_is_wrong() {
        let part = |text| expand(text, &env).expect_err(text).part;
        assert_eq!(part("x:${NOPE}"), Some(2..9));
        assert_eq!(part("x:${PORT"), Some(2..8));
        assert_eq!(part("${PORT:-1}"), Some(0..10));
        assert_eq!(part("${}"), Some(0..3));
        assert_eq!(part("${1A}"), Some(0..5));
        assert_eq!(part("${LONG}"), Some(0..7));
    }
}
