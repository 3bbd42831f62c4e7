//! `PING\r\n`: bytes to send and to expect, written as text.
//!
//! YAML resolves escapes in double quotes by itself; these are for text without quotes or in single ones, and for bytes
//! that are no text at all. A dump of a packet can be given as `hex:`.

use crate::diagnostic::quote;
use crate::problem::Fault;

/// The bytes that a text stands for: itself in UTF-8, with `\r`, `\n`, `\t`, `\\` and `\xHH` resolved; behind `hex:`, pairs of
/// hexadecimal digits with or without spaces between them.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, Fault> {
    if let Some(digits) = text.strip_prefix(HEX) {
        return hex(text, digits);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let begin = text.len() - rest.len() + at;
        let (byte, length) = one(&rest[at + 1..]).map_err(|(length, help)| {
            let part = begin..begin + 1 + length;
            Fault::new(format!("has {} in it", quote(&text[part.clone()])), help).at(part)
        })?;
        bytes.push(byte);
        rest = &rest[at + 1 + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

const HEX: &str = "hex:";

/// `digits` is the end of `text`.
fn hex(text: &str, digits: &str) -> Result<Vec<u8>, Fault> {
    let help = "write pairs of hexadecimal digits, as in hex:ff ff ff ff 54";
    if let Some((at, letter)) = digits
        .char_indices()
        .find(|(_, letter)| !letter.is_ascii_hexdigit() && *letter != ' ')
    {
        let begin = HEX.len() + at;
        let part = begin..begin + letter.len_utf8();
        return Err(Fault::new(format!("has {} in it", quote(&text[part.clone()])), help).at(part));
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for word in digits.split(' ') {
        if word.len() % 2 != 0 {
            return Err(Fault::new(format!("has half a byte in {}", quote(word)), help));
        }
        for pair in (0..word.len()).step_by(2) {
            // Only digits are left.
            bytes.extend(u8::from_str_radix(&word[pair..pair + 2], 16).ok());
        }
    }
    Ok(bytes)
}

/// The byte after a backslash, and how many bytes of text it takes; or how many are to blame, and what would be right.
fn one(text: &str) -> Result<(u8, usize), (usize, &'static str)> {
    let Some(letter) = text.chars().next() else {
        return Err((0, "write \\\\ for a backslash"));
    };
    match letter {
        'r' => Ok((b'\r', 1)),
        'n' => Ok((b'\n', 1)),
        't' => Ok((b'\t', 1)),
        '\\' => Ok((b'\\', 1)),
        'x' => {
            let digits = text[1..].bytes().take(2).take_while(u8::is_ascii_hexdigit).count();
            let byte = (digits == 2)
                .then(|| u8::from_str_radix(&text[1..3], 16).ok())
                .flatten();
            byte.map(|byte| (byte, 3))
                .ok_or((1 + digits, "write two hexadecimal digits, as in \\x0a"))
        }
        '0' => Err((1, "write \\x00 for a zero byte")),
        other => Err((
            other.len_utf8(),
            "write one of \\r \\n \\t \\\\ \\xHH; \\\\ is a backslash",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_become_bytes() {
        for (text, bytes) in [
            ("PING\\r\\n", b"PING\r\n".as_slice()),
            ("", b""),
            ("\\x00\\xfF", b"\x00\xff"),
            ("a\\\\nb", b"a\\nb"),
            ("\\t", b"\t"),
            ("é", b"\xc3\xa9"),
            ("line\r\n", b"line\r\n"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(bytes), "{text:?}");
        }
    }

    #[test]
    fn a_dump_in_hexadecimal_becomes_bytes() {
        for (text, bytes) in [
            ("hex:ffffffff54", b"\xff\xff\xff\xffT".as_slice()),
            ("hex: ff FF  0a", b"\xff\xff\n"),
            ("hex:", b""),
            ("\\x68ex:ff", b"hex:ff"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(bytes), "{text:?}");
        }
        for (text, part, message) in [
            ("hex:fg", Some(5..6), "has \"g\" in it"),
            ("hex:0xff", Some(5..6), "has \"x\" in it"),
            ("hex:fé", Some(5..7), "has \"é\" in it"),
            ("hex:ff f", None, "has half a byte in \"f\""),
        ] {
            let fault = parse(text).expect_err(text);
            assert_eq!((fault.part, fault.message.as_str()), (part, message), "{text}");
        }
    }

    #[test]
    fn unknown_escapes_are_pointed_at() {
        for (text, part, help) in [
            (
                "ab\\q",
                2..4,
                "write one of \\r \\n \\t \\\\ \\xHH; \\\\ is a backslash",
            ),
            ("\\é", 0..3, "write one of \\r \\n \\t \\\\ \\xHH; \\\\ is a backslash"),
            ("a\\", 1..2, "write \\\\ for a backslash"),
            ("\\0", 0..2, "write \\x00 for a zero byte"),
            ("\\x", 0..2, "write two hexadecimal digits, as in \\x0a"),
            ("\\x1g", 0..3, "write two hexadecimal digits, as in \\x0a"),
            ("\\x+1", 0..2, "write two hexadecimal digits, as in \\x0a"),
            ("\\xé1", 0..2, "write two hexadecimal digits, as in \\x0a"),
        ] {
            let fault = parse(text).expect_err(text);
            assert_eq!((fault.part, fault.help.as_str()), (Some(part), help), "{text}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_makes_longer_and_points_inside(text in "(\\\\[rntx0-9a-fq\\\\]|[a-z0-9é]){0,20}") {
            match parse(&text) {
                Ok(bytes) => prop_assert!(bytes.len() <= text.len()),
                Err(fault) => prop_assert!(text.get(fault.part.expect("a part")).is_some()),
            }
        }

        #[test]
        fn every_byte_can_be_written(bytes in any::<Vec<u8>>()) {
            let text: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(parse(&text), Ok(bytes));
        }
    }
}
