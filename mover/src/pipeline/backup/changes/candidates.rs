//! Who may be asked about a source, and why others may not.
//!
//! Owns: what `--changed-blocks` means for a volume. Must not: ask anybody anything.

use changed_blocks::ExtentsFile;

use super::Question;
use crate::device::source::{Blocks, DeltaSources, SourceDevice, Unusable};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::backup::request::ChangedBlocksChoice;

/// Who may be asked.
pub(super) struct Candidates {
    /// The best.
    pub(super) best: Option<Blocks>,
    /// Whether that is a list of what changed, which cannot say what is allocated.
    pub(super) tells_changes_only: bool,
    /// Who would have been better, and cannot be asked.
    pub(super) unusable: Vec<Unusable>,
}

impl Candidates {
    /// Of what the source has, as far as the request allows.
    ///
    /// # Errors
    /// `InvalidRequest` where the request names a source that volumes of this kind do not have, or a list that is none.
    pub(super) fn choose(question: &Question<'_>, has: DeltaSources) -> Result<Self> {
        let nobody = Self {
            best: None,
            tells_changes_only: false,
            unusable: Vec::new(),
        };
        let DeltaSources { found, unusable } = has;
        match &question.request.changed_blocks {
            ChangedBlocksChoice::Auto | ChangedBlocksChoice::None => Ok(Self {
                best: found.into_iter().next(),
                unusable,
                ..nobody
            }),
            ChangedBlocksChoice::Source(name) => {
                let names: Vec<_> = names(&found, &unusable).collect();
                if !names.contains(&name.as_str()) {
                    return Err(no_such_source(question.source, name, &names));
                }
                let mut found = found.into_iter();
                Ok(Self {
                    best: found.find(|one| one.capabilities().name == name),
                    unusable: unusable
                        .into_iter()
                        .filter(|one| one.name == name)
                        .collect(),
                    ..nobody
                })
            }
            ChangedBlocksChoice::ExtentsFile(path) => {
                let list = ExtentsFile::open(path, question.source.size()).map_err(|error| {
                    Error::new(ErrorKind::InvalidRequest, error.with_cause())
                        .hint("see `snaphaul backup --help` for the form of the list")
                })?;
                Ok(Self {
                    tells_changes_only: list.base_point().is_some(),
                    best: Some(Box::new(list)),
                    ..nobody
                })
            }
            ChangedBlocksChoice::Scan
            | ChangedBlocksChoice::HoleMap
            | ChangedBlocksChoice::Delta => Ok(nobody),
        }
    }

    /// Why those that cannot be asked cannot, after `reason`.
    pub(super) fn explain(&self, reason: String) -> String {
        self.unusable.iter().fold(reason, |text, one| {
            format!("{text}; {} cannot be asked: {}", one.name, one.reason)
        })
    }

    /// What a person should know of those that should have answered.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let faults = self.unusable.iter().filter(|one| one.is_fault);
        faults.map(|one| format!("{} cannot be asked what changed: {}", one.name, one.reason))
    }
}

fn names<'a>(found: &'a [Blocks], unusable: &'a [Unusable]) -> impl Iterator<Item = &'static str> {
    let found: Vec<_> = found.iter().map(|one| one.capabilities().name).collect();
    let unusable: Vec<_> = unusable.iter().map(|one| one.name).collect();
    found.into_iter().chain(unusable)
}

fn no_such_source(source: &dyn SourceDevice, name: &str, has: &[&str]) -> Error {
    let hint = if has.is_empty() {
        "leave --changed-blocks out, or say scan".to_owned()
    } else {
        format!(
            "leave --changed-blocks out, or say one of: scan, {}",
            has.join(", ")
        )
    };
    let message = format!("ask {name} what changed: this source has no such changed-block source");
    Error::new(ErrorKind::InvalidRequest, message)
        .object(source.name())
        .hint(hint)
}
