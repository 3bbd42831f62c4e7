//! Documents that must agree with the tree: every path they name exists, every dependency has its line.

use super::{Violation, Workspace};
use std::collections::BTreeSet;

const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const DEPENDENCIES: &str = "docs/decisions/dependencies.md";

/// The documents whose text is read.
pub(super) const READ: &[&str] = &[ARCHITECTURE, DEPENDENCIES];

/// A name without a folder is taken for a path if it ends like this.
const BARE: &[&str] = &[".rs", ".md", ".toml"];
/// A name with a folder is taken for a path if it ends like this, or if its first folder exists.
const IN_FOLDER: &[&str] = &[".rs", ".md", ".toml", ".yaml", ".json", ".svg", ".sh"];

/// A path may be written from the root, from `crates/`, or from any folder: its end must exist.
pub(super) fn check_paths(workspace: &Workspace) -> Vec<Violation> {
    let Some(text) = workspace.document(ARCHITECTURE) else {
        return vec![format!("{ARCHITECTURE} is missing")];
    };
    let mut violations = Vec::new();
    for (line, text) in text.lines().enumerate() {
        for quoted in text.split('`').skip(1).step_by(2) {
            for path in with_braces_expanded(quoted)
                .into_iter()
                .filter(|path| looks_like_a_path(workspace, path))
            {
                if !exists(workspace, path.trim_end_matches('/')) {
                    violations.push(format!("{ARCHITECTURE}:{}: `{path}` does not exist", line + 1));
                }
            }
        }
    }
    violations
}

/// `a/{b,c}.rs` names two files.
fn with_braces_expanded(quoted: &str) -> Vec<String> {
    let inner = quoted.split_once('{').and_then(|(before, rest)| {
        let (list, after) = rest.split_once('}')?;
        Some(
            list.split(',')
                .map(|part| format!("{before}{}{after}", part.trim()))
                .collect(),
        )
    });
    inner.unwrap_or_else(|| vec![quoted.to_owned()])
}

fn looks_like_a_path(workspace: &Workspace, text: &str) -> bool {
    let of_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if text.is_empty() || text.starts_with('/') || !text.chars().all(of_path) {
        return false;
    }
    let Some((first, _)) = text.split_once('/') else {
        return BARE.iter().any(|end| text.ends_with(end));
    };
    let is_folder = |folder: &str| {
        workspace
            .paths
            .iter()
            .any(|path| path.starts_with(&format!("{folder}/")))
    };
    is_folder(first) || is_folder(&format!("crates/{first}")) || IN_FOLDER.iter().any(|end| text.ends_with(end))
}

fn exists(workspace: &Workspace, path: &str) -> bool {
    let end = format!("/{path}");
    workspace
        .paths
        .iter()
        .any(|existing| existing == path || existing.ends_with(&end))
}

/// Every dependency that is not ours stands in backticks in the list.
pub(super) fn check_dependencies(workspace: &Workspace) -> Vec<Violation> {
    let Some(text) = workspace.document(DEPENDENCIES) else {
        return vec![format!("{DEPENDENCIES} is missing")];
    };
    let listed: BTreeSet<&str> = text.split('`').skip(1).step_by(2).collect();
    let mut violations = Vec::new();
    for package in &workspace.packages {
        let foreign = package.dependencies.iter().filter(|d| !workspace.is_member(&d.name));
        let names: BTreeSet<&str> = foreign.map(|dependency| dependency.name.as_str()).collect();
        violations.extend(names.into_iter().filter(|name| !listed.contains(name)).map(|name| {
            format!(
                "{}/Cargo.toml: {name} has no line in {DEPENDENCIES}: what for, who keeps it, what it pulls in",
                package.folder
            )
        }));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn broken(text: &str) -> Vec<Violation> {
        let workspace = Workspace::default().with_document(ARCHITECTURE, text);
        let workspace = workspace
            .with_path("crates/proxy/src/tcp/serve.rs")
            .with_path("crates/core/src/model.rs");
        check_paths(&workspace.with_path("bench/README.md").with_path("Cargo.toml"))
    }

    #[test]
    fn paths_may_be_written_from_any_folder() {
        let text =
            "`crates/proxy/src/tcp/serve.rs`, `proxy/src/tcp/`, `tcp/serve.rs`, `serve.rs`, `Cargo.toml`, `bench/`";
        assert_eq!(broken(text), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_exist_is_found() {
        for text in [
            "`proxy/src/tcp/relay.rs`",
            "`relay.rs`",
            "`crates/http/`",
            "`bench/load`",
            "`docs/x.md`",
        ] {
            assert_eq!(
                broken(text),
                [format!("docs/ARCHITECTURE.md:1: {text} does not exist")],
                "{text}"
            );
        }
        assert_eq!(
            broken("`core/src/{model,reason}.rs`"),
            ["docs/ARCHITECTURE.md:1: `core/src/reason.rs` does not exist"]
        );
    }

    #[test]
    fn other_words_in_backticks_are_left_alone() {
        let text = "`/metrics`, `read/write`, `proxy::tcp::relay`, `cargo xtask tidy`, `crates/*`, `ringway.yaml`, `60s/10s/6`";
        assert_eq!(broken(text), Vec::<String>::new());
    }

    #[test]
    fn a_missing_document_is_a_violation() {
        assert_eq!(check_paths(&Workspace::default()), ["docs/ARCHITECTURE.md is missing"]);
        assert_eq!(
            check_dependencies(&Workspace::default()),
            ["docs/decisions/dependencies.md is missing"]
        );
    }

    #[test]
    fn every_foreign_dependency_needs_its_line() {
        let dependencies = [
            ("mio", Kind::Normal),
            ("proptest", Kind::Dev),
            ("ringway-core", Kind::Normal),
        ];
        let workspace = Workspace::default()
            .with_package("ringway-proxy", &dependencies)
            .with_package("ringway-core", &[])
            .with_document(DEPENDENCIES, "| `proptest` | properties | mio, without backticks |");
        let violations = check_dependencies(&workspace);
        assert_eq!(violations.len(), 1);
        assert!(
            violations[0].starts_with("crates/proxy/Cargo.toml: mio has no line"),
            "{violations:?}"
        );
    }
}
