//! Names in routes: what a TLS hello may ask for.

use crate::diagnostic::quote;
use crate::limits::{HOST_BYTES_MAX, LABEL_BYTES_MAX};
use crate::problem::Fault;
use ringway_core::route::Names;
use std::net::IpAddr;

/// `api.example.com`, `*.example.com` or `*`. In its normal form: lower case, no dot at the end.
pub(crate) fn parse_names(text: &str) -> Result<Names, Fault> {
    if text == "*" {
        return Ok(Names::Any);
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return host(text, rest).map(Names::Below);
    }
    host(text, text).map(Names::Exact)
}

/// `name` is the end of `text`.
fn host(text: &str, name: &str) -> Result<Box<str>, Fault> {
    let quoted = quote(text);
    let part = text.len() - name.len()..text.len();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        let help = "write a name such as api.example.com, or * for any name";
        return Err(Fault::new(format!("{quoted} is no name"), help));
    }
    if let Some((_, after)) = name.rsplit_once('*') {
        let after = after.trim_start_matches('.');
        let after = if after.is_empty() { "example.com" } else { after };
        let help = format!(
            "a wildcard is the whole first label: write {}",
            quote(&format!("*.{after}"))
        );
        return Err(Fault::new(format!("{quoted} has a wildcard inside"), help).at(part));
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        let help = "clients send names only (RFC 6066): write a name, or use fallback for those without";
        return Err(Fault::new(format!("{quoted} is an IP address"), help));
    }
    if name.contains("://") {
        return Err(Fault::new(
            format!("{quoted} begins with a scheme"),
            "write the name alone",
        ));
    }
    if let Some((host, port)) = name.split_once(':') {
        let help = format!("write {host} alone");
        return Err(Fault::new(format!("{quoted} has a port ({})", quote(port)), help));
    }
    if !name.is_ascii() {
        let help = "write it as clients send it, in ASCII (xn--...)";
        return Err(Fault::new(format!("{quoted} is not ASCII"), help));
    }
    if name.len() > HOST_BYTES_MAX {
        let message = format!("{quoted} has {} bytes", name.len());
        return Err(Fault::new(message, format!("at most {HOST_BYTES_MAX}")));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Fault::new(
                format!("{quoted} has an empty label"),
                "write one dot between labels",
            ));
        }
        if label.len() > LABEL_BYTES_MAX {
            let message = format!("{quoted} has a label of {} bytes", label.len());
            return Err(Fault::new(message, format!("at most {LABEL_BYTES_MAX}")));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if let Some(bad) = label.bytes().find(|&byte| !allowed(byte)) {
            let bad = quote(&char::from(bad).to_string());
            let help = "names have letters, digits, - and _ between dots";
            return Err(Fault::new(format!("{quoted} has {bad} in it"), help));
        }
    }
    Ok(name.to_ascii_lowercase().into())
}

/// A protocol of RFC 7301: `h2`, `http/1.1`, `postgresql`.
pub(crate) fn parse_alpn(text: &str) -> Result<Box<[u8]>, Fault> {
    let help = "write a protocol such as h2, http/1.1 or postgresql";
    match text.len() {
        0 => Err(Fault::new("is empty", help)),
        1..=255 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.as_bytes().into()),
        1..=255 => Err(Fault::new(format!("{} is no protocol", quote(text)), help)),
        more => Err(Fault::new(
            format!("{} has {more} bytes", quote(text)),
            "at most 255 (RFC 7301)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_their_normal_form() {
        let exact = |name: &str| Ok(Names::Exact(name.into()));
        let parse = |text| parse_names(text).map_err(|fault| fault.message);
        assert_eq!(parse("API.Example.com."), exact("api.example.com"));
        assert_eq!(parse("localhost"), exact("localhost"));
        assert_eq!(
            parse("_dmarc.xn--bcher-kva.example"),
            exact("_dmarc.xn--bcher-kva.example")
        );
        assert_eq!(parse("*.Example.COM"), Ok(Names::Below("example.com".into())));
        assert_eq!(parse("*"), Ok(Names::Any));
    }

    #[test]
    fn the_wildcard_that_is_proposed_can_be_written() {
        for (text, proposed) in [
            ("*.*.example.com", "*.example.com"),
            ("a.*.example.com", "*.example.com"),
            ("*example.com", "*.example.com"),
            ("a.*", "*.example.com"),
        ] {
            let help = parse_names(text).expect_err(text).help;
            assert!(help.ends_with(&format!("write \"{proposed}\"")), "{text}: {help}");
            assert!(parse_names(proposed).is_ok(), "{proposed}");
        }
    }

    #[test]
    fn what_no_hello_can_ask_for_is_refused() {
        for (text, message) in [
            ("", "\"\" is no name"),
            ("*.", "\"*.\" is no name"),
            ("a.*.com", "\"a.*.com\" has a wildcard inside"),
            ("*a.com", "\"*a.com\" has a wildcard inside"),
            ("*.*.com", "\"*.*.com\" has a wildcard inside"),
            ("10.0.0.1", "\"10.0.0.1\" is an IP address"),
            ("[2001:db8::1]", "\"[2001:db8::1]\" is an IP address"),
            ("https://a.com", "\"https://a.com\" begins with a scheme"),
            ("a.com:443", "\"a.com:443\" has a port (\"443\")"),
            ("bücher.example", "\"bücher.example\" is not ASCII"),
            ("a..com", "\"a..com\" has an empty label"),
            ("a b.com", "\"a b.com\" has \" \" in it"),
        ] {
            assert_eq!(
                parse_names(text).map_err(|fault| fault.message),
                Err(message.to_owned())
            );
        }
    }
}
