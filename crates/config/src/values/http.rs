//! The parts of an HTTP request and its answer that a probe is told: path, host, status codes.

use super::number;
use crate::diagnostic::quote;
use crate::limits::STATUS;
use crate::problem::Fault;

/// The target of a request in origin form (RFC 9112 section 3.2.1).
pub(crate) fn parse_path(text: &str) -> Result<String, Fault> {
    let quoted = quote(text);
    if text.contains("://") {
        return Err(Fault::new(
            format!("{quoted} is a whole URL"),
            "write what comes after the host, such as /health",
        ));
    }
    if !text.starts_with('/') {
        let help = format!("write {}", quote(&format!("/{text}")).trim_matches('"'));
        return Err(Fault::new(format!("{quoted} does not begin with /"), help));
    }
    graphic(text, "write it as %HH, two hexadecimal digits for each byte")?;
    Ok(text.to_owned())
}

/// The value of the header `Host`.
pub(crate) fn parse_host(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty", "write a name, such as www.example.com"));
    }
    if text.contains('/') {
        return Err(Fault::new(
            format!("{} has a / in it", quote(text)),
            "write a name, or a name and a port",
        ));
    }
    graphic(text, "write a name, or a name and a port")?;
    Ok(text.to_owned())
}

/// `200`, or an inclusive range such as `200-399`.
pub(crate) fn parse_status(text: &str) -> Result<(u16, u16), Fault> {
    let help = "write a code such as 200, or a range such as 200-399";
    if text.contains([',', ' ']) {
        return Err(Fault::new(
            format!("{} is not a status", quote(text)),
            "write a list: [200, 204]",
        ));
    }
    if let Some(class) = text
        .strip_suffix("xx")
        .filter(|class| matches!(*class, "1" | "2" | "3" | "4" | "5"))
    {
        let help = format!("write {class}00-{class}99");
        return Err(Fault::new(format!("{} is not a status", quote(text)), help));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |code: &str| {
        number::parse(code, STATUS).map_err(|_| {
            let in_shape = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit());
            if in_shape {
                let help = format!("codes are {} to {}", STATUS.min, STATUS.max);
                Fault::new(format!("{} is out of range", quote(text).trim_matches('"')), help)
            } else {
                Fault::new(format!("{} is not a status", quote(text)), help)
            }
        })
    };
    let (first, last) = (code(first)?, code(last)?);
    if first > last {
        let help = format!("write {last}-{first}");
        return Err(Fault::new(format!("{} runs backwards", quote(text)), help));
    }
    match (u16::try_from(first), u16::try_from(last)) {
        (Ok(first), Ok(last)) => Ok((first, last)),
        // The range in `limits` is asserted at compile time to fit.
        _ => unreachable!("a status was not checked against its range"),
    }
}

/// Visible ASCII only: anything else could end a line of the request.
fn graphic(text: &str, help: &str) -> Result<(), Fault> {
    match text.char_indices().find(|(_, character)| !character.is_ascii_graphic()) {
        Some((at, bad)) => {
            let message = format!("{} has {} in it", quote(text), quote(&bad.to_string()));
            Err(Fault::new(message, help).at(at..at + bad.len_utf8()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_stands_in_the_request_line() {
        for text in ["/", "/health?deep=1&x=%20", "/a:b"] {
            assert_eq!(parse_path(text).as_deref(), Ok(text));
        }
        for (text, message, part) in [
            ("", "\"\" does not begin with /", None),
            ("health", "\"health\" does not begin with /", None),
            ("http://a/health", "\"http://a/health\" is a whole URL", None),
            ("/a b", "\"/a b\" has \" \" in it", Some(2..3)),
            ("/a\r\nX: y", "\"/a\u{fffd}\\nX: y\" has \"\u{fffd}\" in it", Some(2..3)),
            ("/ü", "\"/ü\" has \"ü\" in it", Some(1..3)),
        ] {
            let fault = parse_path(text).expect_err(text);
            assert_eq!((fault.message.as_str(), fault.part), (message, part), "{text:?}");
        }
        assert_eq!(parse_path("health").expect_err("no slash").help, "write /health");
    }

    #[test]
    fn a_host_is_one_word() {
        assert_eq!(
            parse_host("www.example.com:8080").as_deref(),
            Ok("www.example.com:8080")
        );
        for text in ["", "a b", "a/b", "a\nb", "ü"] {
            assert!(parse_host(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn codes_and_ranges() {
        assert_eq!(parse_status("200"), Ok((200, 200)));
        assert_eq!(parse_status("200-399"), Ok((200, 399)));
        assert_eq!(parse_status("100-599"), Ok((100, 599)));
        for (text, help) in [
            ("2xx", "write 200-299"),
            ("200,204", "write a list: [200, 204]"),
            ("200 - 399", "write a list: [200, 204]"),
            ("99", "codes are 100 to 599"),
            ("200-600", "codes are 100 to 599"),
            ("399-200", "write 200-399"),
            ("ok", "write a code such as 200, or a range such as 200-399"),
            ("-200", "write a code such as 200, or a range such as 200-399"),
            ("200-", "write a code such as 200, or a range such as 200-399"),
            ("200-300-400", "write a code such as 200, or a range such as 200-399"),
            ("", "write a code such as 200, or a range such as 200-399"),
        ] {
            assert_eq!(parse_status(text).expect_err(text).help, help, "{text}");
        }
    }
}
