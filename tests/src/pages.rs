//! The configurations of the how-to pages, as they stand there.
//!
//! Only addresses, ports and the interval of probes are replaced, and each replacement must find something, so that page
//! and test cannot drift apart.

use crate::address::Address;
use std::path::{Path, PathBuf};

/// The folder `docs`.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The configurations of a page: its YAML blocks that begin with `listeners:`.
pub fn configurations(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let blocks = text.split("\n```yaml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("\n```").expect("a block has an end").0.to_owned());
    blocks.filter(|block| block.starts_with("listeners:")).collect()
}

/// The n-th configuration of a page, with probes that come often.
pub fn configuration(page: &str, index: usize) -> String {
    let all = configurations(&docs().join(page));
    let text = all
        .get(index)
        .unwrap_or_else(|| panic!("{page} has {} configurations", all.len()));
    assert!(text.contains("interval: 2s"), "{text}");
    text.replace("interval: 2s", "interval: 200ms")
}

/// The text with other addresses.
pub fn placed(text: &str, places: &[(&str, &Address)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in places {
        let mut parts = text.split(from).peekable();
        let mut moved = parts.next().unwrap_or_default().to_owned();
        assert!(parts.peek().is_some(), "{from} is not in {text}");
        for part in parts {
            // `10.0.0.1:80` is also the beginning of `10.0.0.1:8080`.
            let longer = part.starts_with(|next: char| next.is_ascii_digit());
            moved += &if longer { (*from).to_owned() } else { to.to_string() };
            moved += part;
        }
        text = moved;
    }
    assert!(
        !text.contains("0.0.0.0:") && !text.contains("10.0.0."),
        "not everything was placed: {text}"
    );
    text
}
