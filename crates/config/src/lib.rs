//! YAML (or flags) -> the checked model, with all problems at once.
//!
//! ```text
//! text --tree--> nodes with places --decode--> raw values --merge, check--> ringway_core::model::Model
//! ```
//!
//! Owns: the file format, its keys ([`reference()`]), defaults, limits and every sentence about them. Never contains
//! sockets or threads; the file system is read by [`load`] alone, the environment through the function given to
//! [`parse`]. Called by the command line (`run`, `check`). The result needs no further validation: what only a machine
//! can say (descriptors, ports, rights) is found out by whoever starts it.

mod binds;
mod check;
mod decode;
mod diagnostic;
mod fields;
mod flags;
mod fuzz;
mod keys;
mod limits;
mod load;
mod merge;
mod problem;
mod raw;
mod source;
mod suggest;
mod tree;
mod values;

pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use flags::{Flags, from_flags};
#[doc(hidden)]
pub use fuzz::fuzz_body;
pub use keys::reference;
pub use load::{LoadError, load};
pub use source::Source;

use fields::Decoder;
use limits::SOURCES_BYTES_MAX;
use problem::Problems;
use raw::Config;
use ringway_core::model::Model;
use source::{Origin, Sources, Span};

/// A configuration that can be run.
#[derive(Debug, PartialEq)]
pub struct Checked {
    /// Correct in itself; nothing below validates it again.
    pub model: Model,
    /// What has no effect although it is written, such as a pool that no listener uses.
    pub warnings: Diagnostics,
}

/// Checks texts as one configuration. `env` answers `${NAME}`.
///
/// Problems of all texts are collected; at most 100 are kept. A text that is not YAML hides only its own problems.
pub fn parse(sources: &[Source], env: &dyn Fn(&str) -> Option<String>) -> Result<Checked, Diagnostics> {
    let mut texts = Sources::new();
    let mut problems = Problems::default();
    let mut config = Config::default();
    let mut nodes = 0;
    let mut bytes = 0;
    for source in sources {
        let index = texts.add(&source.name, &source.text, Origin::File);
        bytes += source.text.len();
        if bytes > SOURCES_BYTES_MAX {
            let help = format!("at most {} KiB in all files together", SOURCES_BYTES_MAX >> 10);
            problems.error(
                Span {
                    source: index,
                    start: 0,
                    end: 0,
                },
                "the configuration is too large",
                help,
            );
            config.partial = true;
            break;
        }
        match tree::read(&texts, index, nodes, &mut problems) {
            Some(tree) => {
                nodes += tree.nodes;
                let mut decoder = Decoder {
                    problems: &mut problems,
                    env,
                };
                let part = decode::config(&tree.root, &mut decoder);
                if let Some(span) = tree.duplicate.filter(|span| !problems.mentions(*span)) {
                    tree::report_duplicate(span, &mut problems);
                }
                merge::merge(&mut config, part, &mut problems);
            }
            None => config.partial = true,
        }
    }
    if texts.len() == 0 {
        texts.add("configuration", "", Origin::File);
    }
    conclude(config, &texts, problems)
}

/// The common end of all ways to a model.
fn conclude(config: Config, sources: &Sources<'_>, mut problems: Problems) -> Result<Checked, Diagnostics> {
    let model = check::model(config, &mut problems);
    let failed = problems.has_errors();
    let diagnostics = problems.finish(sources);
    if failed {
        Err(diagnostics)
    } else {
        Ok(Checked {
            model,
            warnings: diagnostics,
        })
    }
}
