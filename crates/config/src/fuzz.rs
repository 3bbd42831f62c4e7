//! The body of the fuzz target: what must hold for every input. How long it takes is for the caller to watch.

use crate::{Severity, Source, parse};
use ringway_core::model::{Pool, Probe};

/// Checks arbitrary bytes as a configuration and panics when a promise about diagnostics is broken: every problem has a
/// file, a line and a column that exist and a sentence on one line; what is shown commands no terminal; an accepted
/// configuration has listeners and backends, and holds what the model says of itself.
pub fn fuzz_body(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let lines = text.lines().count().max(1) + 1;
    let env = |name: &str| (name == "PORT").then(|| "5432".to_owned());
    let outcome = parse(
        &[Source {
            name: "fuzz.yaml".to_owned(),
            text,
        }],
        &env,
    );
    let diagnostics = match &outcome {
        Ok(checked) => {
            let model = &checked.model;
            assert!(!model.listeners.is_empty() && !model.pools.is_empty());
            for listener in &model.listeners {
                let mut pools = listener.pools().into_iter();
                assert!(!listener.bind.is_empty() && pools.len() > 0);
                assert!(pools.all(|pool| pool.0 < model.pools.len()));
            }
            model.pools.iter().for_each(check_pool);
            &checked.warnings
        }
        Err(diagnostics) => {
            assert!(
                diagnostics
                    .iter()
                    .any(|diagnostic| diagnostic.severity == Severity::Error)
            );
            diagnostics
        }
    };
    for diagnostic in diagnostics {
        let place = &diagnostic.place;
        assert!(
            place.line >= 1 && place.line <= lines && place.column >= 1,
            "{place:?} of {lines} lines"
        );
        assert!(
            !diagnostic.message.is_empty() && !diagnostic.message.contains('\n'),
            "{:?}",
            diagnostic.message
        );
    }
    let shown = diagnostics.to_string();
    assert!(
        shown
            .chars()
            .all(|character| character == '\n' || !character.is_control()),
        "{shown:?}"
    );
}

/// What the model promises to those who run it.
fn check_pool(pool: &Pool) {
    assert!(!pool.backends.is_empty() && pool.backends.iter().any(|backend| !backend.backup));
    for (index, backend) in pool.backends.iter().enumerate() {
        assert!((1..=1_000).contains(&backend.weight) && backend.max_connections != Some(0));
        assert!(
            pool.backends[..index]
                .iter()
                .all(|other| other.target != backend.target)
        );
    }
    assert!(pool.hash.max_load.is_none_or(|percent| percent > 100));
    assert!(pool.queue.is_none_or(|queue| queue.max > 0 && !queue.timeout.is_zero()));
    assert!(!pool.resolve.interval_min.is_zero() && pool.resolve.interval_min <= pool.resolve.interval_max);
    if let Some(passive) = pool.health.passive {
        assert!(passive.fails > 0 && !passive.eject.is_zero() && passive.max_ejected <= 100);
    }
    let Some(check) = &pool.health.check else { return };
    assert!(check.fails > 0 && check.passes > 0 && !check.interval.is_zero() && !check.timeout.is_zero());
    match &check.probe {
        Probe::Tcp | Probe::Tls(_) => {}
        Probe::Datagram(datagram) => assert!(!datagram.send.is_empty()),
        Probe::Exchange(exchange) => assert!(!exchange.send.is_empty() || !exchange.expect.is_empty()),
        Probe::Http(http) => {
            // Nothing of it may end a line of the request.
            let words = [&*http.method, &*http.path, http.host.as_deref().unwrap_or("")];
            assert!(
                words
                    .iter()
                    .all(|word| word.bytes().all(|byte| byte.is_ascii_graphic()))
            );
            assert!(http.path.starts_with('/') && !http.status.is_empty());
            assert!(
                http.status
                    .iter()
                    .all(|&(first, last)| 100 <= first && first <= last && last <= 599)
            );
        }
    }
}
