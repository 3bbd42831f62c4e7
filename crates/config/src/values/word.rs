//! Names of listeners and pools, and words from a closed set.

use crate::diagnostic::quote;
use crate::limits::NAME_CHARS_MAX;
use crate::problem::Fault;
use crate::suggest;

/// Whether a text can name a listener or a pool.
pub(crate) fn check_name(text: &str) -> Result<(), Fault> {
    let help = "use letters, digits, _ . and -, 1 to 64 of them";
    if text.is_empty() {
        return Err(Fault::new("is empty", help));
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
    if let Some((at, bad)) = text.char_indices().find(|(_, character)| !allowed(*character)) {
        let message = format!("{} has {} in it", quote(text), quote(&bad.to_string()));
        return Err(Fault::new(message, help).at(at..at + bad.len_utf8()));
    }
    if text.len() > NAME_CHARS_MAX {
        return Err(Fault::new(format!("{} is too long", quote(text)), help));
    }
    Ok(())
}

/// One word of a closed set.
pub(crate) struct Choice<T: 'static> {
    /// As documented.
    pub(crate) name: &'static str,
    /// Also accepted.
    pub(crate) aliases: &'static [&'static str],
    /// What it means.
    pub(crate) value: T,
}

/// Finds a word. `later` are words that a later version will know: they get an honest answer.
pub(crate) fn choose<T: Copy>(text: &str, choices: &[Choice<T>], later: &[&str]) -> Result<T, Fault> {
    if let Some(found) = choices
        .iter()
        .find(|choice| choice.name == text || choice.aliases.contains(&text))
    {
        return Ok(found.value);
    }
    let names = choices.iter().map(|choice| choice.name);
    if later.contains(&text) {
        let listed: Vec<&str> = names.collect();
        let help = match listed.as_slice() {
            [only] => format!("use {only}"),
            several => format!("available: {}", several.join(", ")),
        };
        return Err(Fault::new(format!("{text} is not in this version yet"), help));
    }
    // Aliases help to find the word but the documented one is suggested.
    let known = choices
        .iter()
        .flat_map(|choice| choice.aliases.iter().copied().chain([choice.name]));
    let near = suggest::nearest(text, known).and_then(|near| {
        choices
            .iter()
            .find(|choice| choice.name == near || choice.aliases.contains(&near))
    });
    let help = match near {
        Some(choice) => format!("did you mean {}?", quote(choice.name)),
        None => format!("write {}", one_of(&names.collect::<Vec<_>>())),
    };
    Err(Fault::new(format!("{} is not known", quote(text)), help))
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_metric_labels() {
        for name in ["a", "postgres-1", "A.b_C", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_name("a b").expect_err("space").part, Some(1..2));
        assert_eq!(check_name("größe").expect_err("umlaut").part, Some(2..4));
        assert!(check_name("").is_err());
        assert!(check_name(&"x".repeat(65)).is_err());
    }

    #[test]
    fn words_of_later_versions_are_told_apart_from_errors() {
        let choices = [
            Choice {
                name: "tcp",
                aliases: &[],
                value: 1,
            },
            Choice {
                name: "tls_passthrough",
                aliases: &["passthrough"],
                value: 2,
            },
        ];
        assert_eq!(choose("passthrough", &choices, &[]), Ok(2));
        let later = choose("udp", &choices, &["udp"]).expect_err("later");
        assert_eq!(later.message, "udp is not in this version yet");
        assert_eq!(later.help, "available: tcp, tls_passthrough");
        assert_eq!(
            choose("tpc", &choices, &[]).expect_err("typo").help,
            "did you mean \"tcp\"?"
        );
        assert_eq!(
            choose("passtrough", &choices, &[]).expect_err("typo").help,
            "did you mean \"tls_passthrough\"?"
        );
        assert_eq!(
            choose("quic", &choices, &[]).expect_err("unknown").help,
            "write tcp or tls_passthrough"
        );
    }
}
