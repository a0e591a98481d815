//! Runs that die at every line that a journal can have: refused, without a base, with a stale one, late, and while they clean up.
//!
//! Which lines a way has is learned from the run itself, so that a new one is killed at, or the test fails; and every name of a line
//! that the code knows must be in one of the ways.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result, ensure};
use mover::attach::csi::state::Entry;

use crate::deaths::{BACKUP, RESTORE, VARIABLE};
use crate::rig::Rig;

const STEPS: &str = "SNAPHAUL_TEST_STEPS";

pub(crate) const REFUSED_SNAPSHOT: &[&str] = &["begin", "snapshot-wanted", "snapshot-refused"];
pub(crate) const REFUSED_VOLUME: &[&str] = &[
    "begin",
    "snapshot-wanted",
    "snapshot-made",
    "volume-wanted",
    "volume-refused",
    "snapshot-deleted",
];
pub(crate) const REFUSED_RESTORE: &[&str] = &[
    "begin",
    "volume-wanted",
    "volume-made",
    "folder-wanted",
    "attach-wanted",
    "stage-wanted",
    "unstaged",
    "detached",
    "volume-deleted",
    "folder-removed",
];
pub(crate) const WITHOUT_BASE: &[&str] = &[
    "begin",
    "snapshot-wanted",
    "snapshot-made",
    "volume-wanted",
    "volume-made",
    "folder-wanted",
    "attach-wanted",
    "stage-wanted",
    "publish-wanted",
    "drop-base",
    "unpublished",
    "unstaged",
    "detached",
    "volume-deleted",
    "snapshot-deleted",
    "old-base-deleted",
    "folder-removed",
];
pub(crate) const STALE_BASE: &[&str] = &[
    "begin",
    "stale-base",
    "snapshot-wanted",
    "snapshot-made",
    "volume-wanted",
    "volume-made",
    "folder-wanted",
    "attach-wanted",
    "stage-wanted",
    "publish-wanted",
    "keep-base",
    "base-noted",
    "unpublished",
    "unstaged",
    "detached",
    "volume-deleted",
    "old-base-deleted",
    "stale-base-deleted",
    "folder-removed",
];
pub(crate) const SWEEP: &[&str] = &[
    "unpublished",
    "unstaged",
    "detached",
    "volume-deleted",
    "snapshot-deleted",
    "folder-removed",
];
pub(crate) const SWEEP_SNAPSHOT: &[&str] = &["snapshot-made", "snapshot-deleted"];
pub(crate) const SWEEP_VOLUME: &[&str] = &["volume-made", "volume-deleted", "snapshot-deleted"];
pub(crate) const SWEEP_IN_VAIN: &[&str] = &["asked-in-vain"];
pub(crate) const SWEEP_GIVES_UP: &[&str] = &["volume-refused", "snapshot-deleted"];
pub(crate) const SWEEP_LATE: &[&str] = &[
    "base-superseded",
    "unpublished",
    "unstaged",
    "detached",
    "volume-deleted",
    "snapshot-deleted",
    "old-base-deleted",
    "folder-removed",
];
pub(crate) const SWEEP_COMMITTED: &[&str] = &[
    "keep-base",
    "base-noted",
    "unpublished",
    "unstaged",
    "detached",
    "volume-deleted",
    "old-base-deleted",
    "folder-removed",
];
/// What a run does with a device, wherever it comes from: other ways die there.
pub(crate) const DEVICE: &[&str] = &[
    "folder-wanted",
    "attach-wanted",
    "stage-wanted",
    "publish-wanted",
    "unpublished",
    "unstaged",
    "detached",
    "folder-removed",
];

/// Every line has a way on which runs die at it.
pub(crate) fn every_line_has_its_death() -> Result<()> {
    let ways: [&[&str]; 14] = [
        &BACKUP,
        &RESTORE,
        REFUSED_SNAPSHOT,
        REFUSED_VOLUME,
        REFUSED_RESTORE,
        WITHOUT_BASE,
        STALE_BASE,
        SWEEP,
        SWEEP_SNAPSHOT,
        SWEEP_VOLUME,
        SWEEP_IN_VAIN,
        SWEEP_GIVES_UP,
        SWEEP_LATE,
        SWEEP_COMMITTED,
    ];
    let dying: BTreeSet<_> = ways.concat().into_iter().collect();
    let known: BTreeSet<_> = Entry::NAMES.iter().copied().collect();
    let differ: Vec<_> = known.symmetric_difference(&dying).collect();
    ensure!(
        differ.is_empty(),
        "no run dies at, or no line is: {differ:?}"
    );
    Ok(())
}

/// The lines that a run writes: in a clean-up those of others, before it begins itself.
pub(crate) fn learned(rig: &Rig<'_>, command: tests::snaphaul::Snaphaul) -> Result<Vec<String>> {
    let file = rig.scratch.join("steps");
    let _ = std::fs::remove_file(&file);
    command.env(STEPS, &file).run()?;
    let text = std::fs::read_to_string(&file).context("it writes no line")?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(begin) = lines.iter().skip(1).position(|line| line == "begin") {
        lines.truncate(begin + 1);
    }
    Ok(lines)
}

/// A way on which runs die.
pub(crate) struct Way<'a> {
    pub(crate) steps: &'a [&'a str],
    /// Lines of it at which runs die on other ways.
    pub(crate) elsewhere: &'a [&'a str],
    /// Brings about what is there before; the words of the run that dies.
    pub(crate) words: &'a mut dyn FnMut(&Rig<'_>) -> Result<Vec<String>>,
    /// Looks that the next run puts everything right.
    pub(crate) after: &'a mut dyn FnMut(&Rig<'_>) -> Result<()>,
}

impl Way<'_> {
    pub(crate) fn walk(&mut self, rig: &Rig<'_>) -> Result<()> {
        let words = (self.words)(rig)?;
        let lines = learned(rig, command(rig, &words)?)?;
        ensure!(lines == self.steps, "the lines are {lines:?}");
        (self.after)(rig).context("without a death")?;
        for step in self
            .steps
            .iter()
            .filter(|step| !self.elsewhere.contains(step))
        {
            for when in ["before", "after"] {
                let at = format!("{when}:{step}");
                let words = (self.words)(rig).with_context(|| at.clone())?;
                let died = command(rig, &words)?.env(VARIABLE, &at).run()?;
                ensure!(died.status.signal() == Some(9), "{at}: {}", died.stderr);
                (self.after)(rig).with_context(|| at.clone())?;
            }
        }
        Ok(())
    }
}

fn command(rig: &Rig<'_>, words: &[String]) -> Result<tests::snaphaul::Snaphaul> {
    if words[0] == "csi" {
        rig.csi_command(words)
    } else {
        rig.command(words)
    }
}
