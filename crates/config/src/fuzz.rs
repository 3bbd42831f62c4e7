//! The body of the fuzz target: what must hold for every input. How long it takes is for the caller to watch.

use crate::{Severity, Source, parse};

/// Checks arbitrary bytes as a configuration and panics when a promise about diagnostics is broken: every problem has a
/// file, a line and a column that exist and a sentence on one line; what is shown commands no terminal; an accepted
/// configuration has listeners and backends.
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
                assert!(!listener.bind.is_empty() && listener.pool.0 < model.pools.len());
            }
            for pool in &model.pools {
                assert!(!pool.backends.is_empty() && pool.backends.iter().all(|backend| backend.weight > 0));
            }
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
