//! The headers that other programs are shown as well (`tests/tests/programs_proxy.rs`).

use crate::forge::BOTH;
use crate::headers::{Seen, rows};
use ringway_wire::proxy::{HEADER_MAX, read};

/// What the end-to-end test sends after a header.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

#[test]
fn the_table_tells_what_is_read() {
    let rows = rows();
    assert!(rows.len() > 80, "{}", rows.len());
    for row in rows {
        let connection = [&row.header, REQUEST].concat();
        let seen = match read(&connection, BOTH, HEADER_MAX) {
            Ok(None) => panic!("{}: unfinished", row.name),
            Ok(Some(header)) => {
                assert_eq!(header.len, row.header.len(), "{}", row.name);
                Seen::Taken {
                    source: header.addresses.source(),
                    authority: header.authority().map(<[u8]>::to_vec),
                    unique_id: header.unique_id().map(<[u8]>::to_vec),
                }
            }
            Err(error) => Seen::Refused {
                label: error.label().to_owned(),
            },
        };
        assert_eq!(seen, row.ours, "{}", row.name);
    }
}
