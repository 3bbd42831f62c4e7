//! `cargo xtask tidy`: what the design forbids and a compiler does not see.
//!
//! Rules, one file each: [`floors`] (who may use whom), [`imports`] (what a floor never contains), [`shape`] (lengths,
//! leftovers), [`docs`] (named paths and dependencies). Each rule is a function from a [`Workspace`] to violations, so
//! that its tests run on small workspaces in memory.

mod docs;
mod floors;
mod imports;
mod shape;
mod source;

use crate::run;
use serde_json::Value;
use source::Source;
use std::collections::BTreeSet;
use std::path::Path;

/// Everything the rules look at.
#[derive(Default)]
struct Workspace {
    packages: Vec<Package>,
    sources: Vec<Source>,
    /// Files and folders, relative to the root, `/` between parts.
    paths: BTreeSet<String>,
    /// Texts of the documents that rules read, by path.
    documents: Vec<(String, String)>,
}

/// One member of the workspace.
struct Package {
    name: String,
    /// Its folder, relative to the root.
    folder: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    kind: Kind,
    optional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

/// A sentence that starts with the place.
type Violation = String;

/// Prints every violation; fails if there is one.
pub(crate) fn run() -> Result<(), String> {
    let workspace = Workspace::read()?;
    let violations = check(&workspace);
    for violation in &violations {
        println!("tidy: {violation}");
    }
    match violations.len() {
        0 => {
            println!(
                "tidy: {} packages, {} sources, no violation",
                workspace.packages.len(),
                workspace.sources.len()
            );
            Ok(())
        }
        count => Err(format!("tidy: {count} violations")),
    }
}

fn check(workspace: &Workspace) -> Vec<Violation> {
    let rules = [
        floors::check,
        imports::check,
        imports::check_unsafe,
        shape::check_files,
        shape::check_functions,
        shape::check_leftovers,
        docs::check_paths,
        docs::check_dependencies,
    ];
    rules.iter().flat_map(|rule| rule(workspace)).collect()
}

impl Workspace {
    fn read() -> Result<Self, String> {
        let metadata = run::metadata()?;
        let root = metadata["workspace_root"]
            .as_str()
            .ok_or("cargo metadata has no workspace_root")?
            .to_owned();
        let packages = metadata["packages"]
            .as_array()
            .ok_or("cargo metadata has no packages")?;
        let mut workspace = Self {
            packages: packages
                .iter()
                .map(|p| Package::from_metadata(p, &root))
                .collect::<Result<_, _>>()?,
            ..Self::default()
        };
        workspace.walk(Path::new(&root), "")?;
        Ok(workspace)
    }

    /// Skips what git does not keep: build output and hidden folders, but for `.ci` and `.cargo`.
    fn walk(&mut self, folder: &Path, relative: &str) -> Result<(), String> {
        let explain = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
        for entry in std::fs::read_dir(folder).map_err(explain)? {
            let entry = entry.map_err(explain)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if relative.is_empty() {
                name.clone()
            } else {
                format!("{relative}/{name}")
            };
            if entry.file_type().map_err(explain)?.is_dir() {
                let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
                if hidden || name == "target" {
                    continue;
                }
                self.walk(&entry.path(), &path)?;
            } else if path.ends_with(".rs") || docs::READ.contains(&path.as_str()) {
                let text = std::fs::read_to_string(entry.path()).map_err(|e| format!("cannot read {path}: {e}"))?;
                if path.ends_with(".rs") {
                    self.sources.push(Source::new(&path, &text));
                } else {
                    self.documents.push((path.clone(), text));
                }
            }
            self.paths.insert(path);
        }
        Ok(())
    }

    fn document(&self, path: &str) -> Option<&str> {
        self.documents
            .iter()
            .find(|(p, _)| p == path)
            .map(|(_, text)| text.as_str())
    }

    fn is_member(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package.name == name)
    }

    /// The sources of a package that go into what is shipped: below `src`, without its tests.
    fn product_sources<'a>(&'a self, package: &Package) -> impl Iterator<Item = &'a Source> {
        let folder = format!("{}/src/", package.folder);
        self.sources
            .iter()
            .filter(move |source| source.path.starts_with(&folder) && !self.is_test_module(source))
    }

    fn is_test_module(&self, source: &Source) -> bool {
        let below = |stem: &String| {
            let rest = source.path.strip_prefix(stem.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        self.sources
            .iter()
            .flat_map(|declaring| &declaring.test_modules)
            .any(below)
    }
}

impl Package {
    fn from_metadata(package: &Value, root: &str) -> Result<Self, String> {
        let text = |value: &Value, key: &str| {
            value[key]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("cargo metadata: a package without {key}"))
        };
        let manifest = text(package, "manifest_path")?;
        let folder = Path::new(&manifest)
            .parent()
            .and_then(|folder| folder.strip_prefix(root).ok());
        let folder = folder.ok_or_else(|| format!("{manifest} lies outside of {root}"))?;
        let mut dependencies = Vec::new();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            dependencies.push(Dependency {
                name: text(dependency, "name")?,
                kind: match dependency["kind"].as_str() {
                    Some("dev") => Kind::Dev,
                    Some("build") => Kind::Build,
                    _ => Kind::Normal,
                },
                optional: dependency["optional"].as_bool().unwrap_or(false),
            });
        }
        Ok(Self {
            name: text(package, "name")?,
            folder: folder.to_string_lossy().into_owned(),
            dependencies,
        })
    }
}

/// For the tests of the rules: a workspace in memory.
#[cfg(test)]
impl Workspace {
    /// A package in `crates/<name without the prefix>` that depends on `dependencies`.
    fn with_package(mut self, name: &str, dependencies: &[(&str, Kind)]) -> Self {
        let short = if name == "ringway" {
            "cli"
        } else {
            name.trim_start_matches("ringway-")
        };
        let folder = format!("crates/{short}");
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: *kind,
                optional: false,
            })
            .collect();
        self.packages.push(Package {
            name: name.to_owned(),
            folder,
            dependencies,
        });
        self
    }

    fn with_source(mut self, path: &str, text: &str) -> Self {
        self.sources.push(Source::new(path, text));
        self.with_path(path)
    }

    fn with_document(mut self, path: &str, text: &str) -> Self {
        self.documents.push((path.to_owned(), text.to_owned()));
        self.with_path(path)
    }

    fn with_path(mut self, path: &str) -> Self {
        let mut part = path;
        self.paths.insert(part.to_owned());
        while let Some((folder, _)) = part.rsplit_once('/') {
            self.paths.insert(folder.to_owned());
            part = folder;
        }
        self
    }
}
