//! The one escaper of the session log: whatever a string holds, the line stays one line, parses, and moves no cursor.

use crate::logs::obeyed_by_terminals;

/// As a JSON string, quotes included (RFC 8259, section 7).
pub(super) fn push_quoted(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    // Names and addresses are like this nearly always.
    if text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
    {
        line.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|character| push_escaped(line, character));
    }
    line.push(b'"');
}

/// As it is if it is one word that cannot be mistaken for anything else, as a JSON string otherwise.
pub(super) fn push_word(line: &mut Vec<u8>, text: &str) {
    let plain = |byte| matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'\\' && byte != b'=';
    if !text.is_empty() && text != super::line::NOTHING_IN_TEXT && text.bytes().all(plain) {
        line.extend_from_slice(text.as_bytes());
    } else {
        push_quoted(line, text);
    }
}

fn push_escaped(line: &mut Vec<u8>, character: char) {
    match character {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\n' => line.extend_from_slice(b"\\n"),
        '\r' => line.extend_from_slice(b"\\r"),
        '\t' => line.extend_from_slice(b"\\t"),
        c if obeyed_by_terminals(c) => {
            // None of them lies beyond U+FFFF, so that no surrogates are needed.
            let code = u32::from(c);
            line.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                line.push(b"0123456789abcdef"[(code >> shift & 0xf) as usize]);
            }
        }
        c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        let mut line = Vec::new();
        push_quoted(&mut line, text);
        String::from_utf8(line).expect("UTF-8")
    }

    fn word(text: &str) -> String {
        let mut line = Vec::new();
        push_word(&mut line, text);
        String::from_utf8(line).expect("UTF-8")
    }

    #[test]
    fn each_of_256_byte_values_parses_and_stays_on_its_line() {
        let every: Vec<u8> = (0..=255).collect();
        let mut texts: Vec<String> = every.iter().map(|&byte| char::from(byte).to_string()).collect();
        texts.extend(
            every
                .iter()
                .map(|&byte| String::from_utf8_lossy(&[b'a', byte, b'z']).into_owned()),
        );
        texts.push(every.iter().map(|&byte| char::from(byte)).collect());
        texts.push(String::from_utf8_lossy(&every).into_owned());
        texts.push("\u{2028}\u{2029}\u{202e}\u{2066}\u{fffd}\u{10ffff}é".to_owned());
        for text in texts {
            for line in [quoted(&text), word(&text)] {
                let bad = |c: char| c.is_control() || "\u{2028}\u{2029}\u{202e}\u{2066}".contains(c);
                assert!(!line.contains(bad), "{line:?}");
                let parsed = match line.strip_prefix('"') {
                    Some(_) => serde_json::from_str(&line).expect("JSON"),
                    None => line,
                };
                assert_eq!(parsed, text);
            }
        }
    }

    #[test]
    fn escapes_look_as_in_rfc_8259() {
        assert_eq!(quoted("a\"b\\c\nd\re\tf"), r#""a\"b\\c\nd\re\tf""#);
        assert_eq!(
            quoted("\0\u{1b}\u{7f}\u{9f}\u{2028}"),
            r#""\u0000\u001b\u007f\u009f\u2028""#
        );
        assert_eq!(quoted("é\u{1f600}"), "\"é\u{1f600}\"");
    }

    #[test]
    fn a_word_is_quoted_only_where_it_could_be_mistaken() {
        for plain in ["web", "10.0.0.1:80", "unix:/run/a_b-c.sock", "[::1]:80"] {
            assert_eq!(word(plain), plain);
        }
        for mistakable in ["", "-", "two words", "a=b", "é"] {
            assert_eq!(word(mistakable), format!("\"{mistakable}\""));
        }
    }
}
