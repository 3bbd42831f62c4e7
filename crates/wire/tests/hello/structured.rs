//! Hellos from parts, drawn: the name that was put in comes out, however the bytes arrive.

use crate::{ABSENT, Said, read_in_pieces};
use proptest::collection::vec;
use proptest::prelude::*;
use ringway_wire::hello::forge::{self, Parts};

/// A host name, in any case, with or without a trailing dot. Its last label begins with a letter: it is no address.
fn host() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9_-]{1,20}\\.){0,6}[a-zA-Z][a-zA-Z0-9_-]{0,20}\\.?"
}

/// An extension that is neither server_name nor ALPN: registered ones, GREASE, unassigned ones; any content.
fn other_extension() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let grease = (0u16..16).prop_map(|n| n << 12 | n << 4 | 0x0A0A);
    let registered = prop::sample::select(vec![5u16, 10, 11, 13, 18, 21, 23, 35, 41, 43, 45, 51, 0xFE0D, 0xFF01]);
    let kind = prop_oneof![grease, registered, 1..=u16::MAX];
    (
        kind.prop_filter("not ALPN", |kind| *kind != 16),
        vec(any::<u8>(), 0..200),
    )
}

prop_compose! {
    fn hello()(
        name in prop::option::weighted(0.8, host()),
        protocols in vec(vec(any::<u8>(), 1..30), 0..5),
        others in vec(other_extension(), 0..12),
        places in any::<(prop::sample::Index, prop::sample::Index)>(),
        version in any::<u16>(),
        random in any::<[u8; 32]>(),
        session_id in vec(any::<u8>(), 0..=32),
        cipher_suites in vec(any::<[u8; 2]>(), 1..100),
        compressions in vec(any::<u8>(), 1..4),
    ) -> (Parts, Said) {
        let mut extensions = others;
        let list: Vec<&[u8]> = protocols.iter().map(Vec::as_slice).collect();
        if let Some(name) = &name {
            extensions.insert(places.0.index(extensions.len() + 1), forge::server_name(name.as_bytes()));
        }
        if !list.is_empty() {
            extensions.insert(places.1.index(extensions.len() + 1), forge::alpn(&list));
        }
        let parts = Parts {
            version,
            random,
            session_id,
            cipher_suites: cipher_suites.concat(),
            compressions,
            extensions: Some(extensions),
        };
        let normal = |name: &String| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let name = name.as_ref().map_or_else(|| ABSENT.to_owned(), normal);
        (parts, Said { name, protocols })
    }
}

/// Sizes of which most are small.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1usize..4, 1usize..60, 1usize..1000], 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::seeded::figure(500, 20_000) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_name_that_went_in_comes_out((parts, said) in hello(), segments in sizes(), records in sizes(), tail in vec(any::<u8>(), 0..20)) {
        let message = parts.message();
        let stream = forge::records(&message, records);
        let ends = segments.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        });
        prop_assert_eq!(read_in_pieces(&stream, ends), Ok(Some(said.clone())));
        prop_assert_eq!(crate::read(&[&stream[..], &tail].concat()), Ok(Some(said)));
        prop_assert_eq!(Parts::read(&message), Ok(parts));
    }

    #[test]
    fn a_second_name_is_never_overlooked((mut parts, said) in hello(), second in host(), place in any::<prop::sample::Index>()) {
        let extensions = parts.extensions.as_mut().expect("extensions");
        if said.name == ABSENT {
            extensions.push(forge::server_name(b"first.example"));
        }
        extensions.insert(place.index(extensions.len() + 1), forge::server_name(second.as_bytes()));
        let answer = crate::read(&forge::records(&parts.message(), []));
        prop_assert_eq!(answer, Err(ringway_wire::hello::HelloError::Malformed));
    }
}
