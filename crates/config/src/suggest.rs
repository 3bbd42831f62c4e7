//! "Did you mean": the known word that is nearest to an unknown one.

use crate::diagnostic::quote;

/// Words longer than this are not compared; nothing we know is as long.
const WORD_CHARS_MAX: usize = 64;
/// Known words listed when none is near.
const LISTED_MAX: usize = 6;
/// Known words that an unknown one is compared with; a thousand is a long search already.
const COMPARED_MAX: usize = 1_000;
/// Typing errors that are forgiven in a long word.
const ERRORS_MAX: usize = 3;

/// The known word that was probably meant: few typing errors away, or abbreviated by `word` and the only such one.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(WORD_CHARS_MAX + 1).collect();
    if word.is_empty() || word.len() > WORD_CHARS_MAX {
        return None;
    }
    let errors_max = word.len().div_ceil(3).min(ERRORS_MAX);
    let mut best: Option<(usize, &str)> = None;
    let mut abbreviated: Option<&str> = None;
    let mut abbreviated_count = 0;
    for candidate in known.take(COMPARED_MAX) {
        let other: Vec<char> = candidate.to_lowercase().chars().take(WORD_CHARS_MAX).collect();
        let errors = distance(&word, &other);
        // A word in which every letter is wrong is another word.
        if errors <= errors_max
            && errors < other.len().min(word.len()).max(1)
            && best.is_none_or(|(least, _)| errors < least)
        {
            best = Some((errors, candidate));
        }
        if abbreviates(&word, &other) {
            abbreviated = Some(candidate);
            abbreviated_count += 1;
        }
    }
    best.map(|(_, candidate)| candidate)
        .or(abbreviated.filter(|_| abbreviated_count == 1))
}

/// A help text: the nearest known word, or what is known after `kind`, such as "defined pools".
pub(crate) fn help<'a>(word: &str, kind: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("did you mean {}?", quote(near));
    }
    let listed: Vec<&str> = known.clone().take(LISTED_MAX).collect();
    match listed.len() {
        0 => String::new(),
        _ if known.count() > LISTED_MAX => format!("{kind}: {}, ...", listed.join(", ")),
        _ => format!("{kind}: {}", listed.join(", ")),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment); above [`ERRORS_MAX`] the
/// number may be any that is larger.
fn distance(left: &[char], right: &[char]) -> usize {
    let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let (left, right) = (&left[same..], &right[same..]);
    let same = left
        .iter()
        .rev()
        .zip(right.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (left, right) = (&left[..left.len() - same], &right[..right.len() - same]);
    if left.len().abs_diff(right.len()) > ERRORS_MAX {
        return usize::MAX;
    }
    let width = right.len() + 1;
    let (mut before, mut last, mut row) = (vec![0; width], (0..width).collect::<Vec<usize>>(), vec![0; width]);
    for (i, a) in left.iter().enumerate() {
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let changed = last[j] + usize::from(a != b);
            row[j + 1] = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i - 1] == *b && *a == right[j - 1] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        // No later row can be smaller than the smallest of two neighbouring rows.
        if row.iter().chain(&last).min().is_some_and(|&least| least > ERRORS_MAX) {
            return usize::MAX;
        }
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[right.len()]
}

/// `pg` abbreviates `postgres`: same first letter, the others in order, at least two of them.
fn abbreviates(short: &[char], long: &[char]) -> bool {
    if short.len() < 2 || short.len() >= long.len() || short.first() != long.first() {
        return false;
    }
    let mut rest = long.iter();
    short.iter().all(|wanted| rest.any(|letter| letter == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(left: &str, right: &str) -> usize {
        distance(&left.chars().collect::<Vec<_>>(), &right.chars().collect::<Vec<_>>())
    }

    #[test]
    fn distances_counted_by_hand() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("blance", "balance"), 1);
        assert_eq!(edits("bakcends", "backends"), 1, "a swap is one error");
        assert_eq!(edits("ca", "abc"), 3, "optimal string alignment, not full Damerau");
    }

    #[test]
    fn an_abbreviation_is_understood_when_it_is_the_only_one() {
        assert_eq!(nearest("pg", ["postgres", "redis"].into_iter()), Some("postgres"));
        assert_eq!(nearest("pg", ["postgres", "pgbouncer"].into_iter()), None);
    }

    #[test]
    fn the_nearest_of_several_wins_and_strangers_are_not_suggested() {
        let known = ["idle_timeout", "routing_timeout", "bind"];
        assert_eq!(nearest("idel_timeout", known.into_iter()), Some("idle_timeout"));
        assert_eq!(nearest("BIND", known.into_iter()), Some("bind"));
        assert_eq!(nearest("zzzz", known.into_iter()), None);
        assert_eq!(nearest("ab", ["cd"].into_iter()), None);
        assert_eq!(nearest(&"x".repeat(10_000), known.into_iter()), None);
    }

    #[test]
    fn without_a_near_one_the_known_are_listed() {
        assert_eq!(help("zzzz", "known", ["a", "b"].into_iter()), "known: a, b");
        assert_eq!(
            help("zzzz", "known", ["a", "b", "c", "d", "e", "f", "g"].into_iter()),
            "known: a, b, c, d, e, f, ..."
        );
        assert_eq!(help("zzzz", "known", std::iter::empty()), "");
    }
}
