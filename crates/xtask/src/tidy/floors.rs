//! Who may use whom: the floor table of docs/ARCHITECTURE.md, declared once.

use super::{Violation, Workspace};

struct Floor {
    package: &'static str,
    /// Of ours; dev-dependencies obey the same list, so that tests pull no arrow upwards either.
    may_use: &'static [&'static str],
}

const fn floor(package: &'static str, may_use: &'static [&'static str]) -> Floor {
    Floor { package, may_use }
}

const FLOORS: &[Floor] = &[
    floor("ringway-wire", &[]),
    floor("ringway-core", &[]),
    floor("ringway-runtime", &[]),
    floor("ringway-config", &["ringway-core", "ringway-wire"]),
    floor("ringway-proxy", &["ringway-runtime", "ringway-core", "ringway-wire"]),
    floor(
        "ringway-http",
        &["ringway-proxy", "ringway-runtime", "ringway-core", "ringway-wire"],
    ),
    floor(
        "ringway-control",
        &[
            "ringway-http",
            "ringway-proxy",
            "ringway-runtime",
            "ringway-config",
            "ringway-core",
            "ringway-wire",
        ],
    ),
    floor("ringway", &["ringway-control", "ringway-config"]),
    // Outside of the building: they see the product through its binary only.
    floor("ringway-tests", &[]),
    floor("ringway-xtask", &[]),
    floor("ringway-bench-load", &[]),
    floor("naive-tokio-uring", &[]),
];

/// Edges that must be behind a Cargo feature.
const OPTIONAL: &[(&str, &str)] = &[("ringway-control", "ringway-http")];

pub(super) fn check(workspace: &Workspace) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &workspace.packages {
        let name = package.name.as_str();
        let Some(floor) = FLOORS.iter().find(|floor| floor.package == name) else {
            violations.push(format!(
                "{}/Cargo.toml: {name} has no floor; give it a row in FLOORS of crates/xtask/src/tidy/floors.rs",
                package.folder
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| workspace.is_member(&d.name)) {
            let target = dependency.name.as_str();
            if !floor.may_use.contains(&target) {
                violations.push(format!(
                    "{}/Cargo.toml: {name} may not use {target} ({:?}); it may use: {}",
                    package.folder,
                    dependency.kind,
                    if floor.may_use.is_empty() {
                        "none of ours".to_owned()
                    } else {
                        floor.may_use.join(", ")
                    }
                ));
            }
            if OPTIONAL.contains(&(name, target)) && !dependency.optional {
                violations.push(format!("{}/Cargo.toml: {target} must be optional here", package.folder));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn edge(from: &str, to: &str, kind: Kind) -> Vec<Violation> {
        check(
            &Workspace::default()
                .with_package(from, &[(to, kind)])
                .with_package(to, &[]),
        )
    }

    #[test]
    fn arrows_point_down() {
        assert_eq!(
            edge("ringway-proxy", "ringway-runtime", Kind::Normal),
            Vec::<String>::new()
        );
        assert_eq!(edge("ringway", "ringway-control", Kind::Normal), Vec::<String>::new());
        let up = edge("ringway-core", "ringway-config", Kind::Normal);
        assert!(
            up[0].starts_with("crates/core/Cargo.toml: ringway-core may not use ringway-config"),
            "{up:?}"
        );
        assert_eq!(edge("ringway-proxy", "ringway-config", Kind::Dev).len(), 1);
        assert_eq!(edge("ringway-xtask", "ringway-core", Kind::Normal).len(), 1);
    }

    #[test]
    fn http_stays_optional() {
        let violations = edge("ringway-control", "ringway-http", Kind::Normal);
        assert_eq!(
            violations,
            ["crates/control/Cargo.toml: ringway-http must be optional here"]
        );
    }

    #[test]
    fn a_newcomer_needs_a_row() {
        let violations = check(&Workspace::default().with_package("ringway-newcomer", &[]));
        assert!(violations[0].contains("has no floor"), "{violations:?}");
    }

    #[test]
    fn the_table_has_no_cycle() {
        for floor in FLOORS {
            for target in floor.may_use {
                let back = FLOORS
                    .iter()
                    .find(|f| f.package == *target)
                    .expect("every target has a row");
                assert!(!back.may_use.contains(&floor.package), "{} and {target}", floor.package);
            }
        }
    }
}
