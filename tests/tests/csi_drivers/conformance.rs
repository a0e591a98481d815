//! SnapshotMetadata against its specification: the layout of answers, and what the ranges are good for.

use anyhow::{Result, ensure};
use tests::csi::Plugin;
use tests::image::MIB;
use tests::random::Random;

use crate::conduct::Conduct;
use crate::subject::{Still, Subject, completes, from};

const UNIT: u64 = 4096;
const SIZE: u64 = 2 * MIB;

/// A layout with a lone block, neighbours, and the very last block; a second snapshot with changes, a discarded range and zeros.
fn history(plugin: &dyn Plugin, name: &str) -> Result<(Subject, Still, Still)> {
    let mut subject = Subject::new(plugin, name, SIZE)?;
    subject.write(0, &[1; 4096])?;
    subject.write(MIB, &[2; 8 * 4096])?;
    subject.write(SIZE - UNIT, &[3; 4096])?;
    let base = subject.snapshot("base")?;
    subject.write(MIB + UNIT, &[4; 4096])?;
    subject.discard(MIB + 4 * UNIT, 2 * UNIT)?;
    subject.write(MIB + 7 * UNIT, &[0; 4096])?;
    subject.write(MIB / 2, &[5; 2 * 4096])?;
    let target = subject.snapshot("target")?;
    Ok((subject, base, target))
}

/// Exactly the blocks that were written, and exactly those that differ: what was discarded or overwritten with zeros too.
pub(crate) fn layout(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let before = plugin.leaks()?;
    let (subject, base, target) = history(plugin, "layout")?;
    let written = vec![(0, UNIT), (MIB, MIB + 8 * UNIT), (SIZE - UNIT, SIZE)];
    ensure!(subject.allocated(conduct, &base, 0, 0)? == written);
    let delta = subject.delta(conduct, (&base, &target), 0, 0)?;
    let changed = vec![
        (MIB / 2, MIB / 2 + 2 * UNIT),
        (MIB + UNIT, MIB + 2 * UNIT),
        (MIB + 4 * UNIT, MIB + 6 * UNIT),
        (MIB + 7 * UNIT, MIB + 8 * UNIT),
    ];
    ensure!(delta == changed, "{delta:?}");
    completes(&base.content, &target.content, &delta)?;
    let empty = Subject::new(plugin, "empty", SIZE)?;
    let stills = vec![empty.snapshot("one")?, empty.snapshot("two")?];
    ensure!(empty.allocated(conduct, &stills[0], 0, 0)?.is_empty());
    ensure!(
        empty
            .delta(conduct, (&stills[0], &stills[1]), 0, 0)?
            .is_empty()
    );
    empty.end(stills)?;
    let same = subject.snapshot("same")?;
    ensure!(subject.delta(conduct, (&target, &same), 0, 0)?.is_empty());
    ensure!(
        subject.delta(conduct, (&same, &same), 0, 0)?.is_empty(),
        "a snapshot does not differ from itself"
    );
    subject.end(vec![base, target, same])?;
    let left = plugin.left_since(&before)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Every offset and every size of message gives the rest of the same answer, so that any cut can be resumed.
pub(crate) fn offsets_and_pages(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let (subject, base, target) = history(plugin, "offsets")?;
    let allocated = subject.allocated(conduct, &base, 0, 0)?;
    let delta = subject.delta(conduct, (&base, &target), 0, 0)?;
    for max in [1, 2, 3, 1_000_000] {
        ensure!(subject.allocated(conduct, &base, 0, max)? == allocated);
        ensure!(subject.delta(conduct, (&base, &target), 0, max)? == delta);
    }
    let mut offsets = vec![
        0,
        UNIT,
        MIB / 2 + UNIT,
        MIB,
        MIB + 3 * UNIT,
        SIZE - UNIT,
        SIZE,
    ];
    if !conduct.hostpath {
        offsets.extend([1, UNIT - 1, MIB + 1, MIB + 5 * UNIT + 512, SIZE - 1]);
    }
    // Wherever a stream can be cut, its last end is where it goes on.
    offsets.extend(delta.iter().chain(&allocated).map(|range| range.1));
    for offset in offsets {
        let rest = from(offset, &subject.allocated(conduct, &base, offset, 2)?);
        ensure!(
            rest == from(offset, &allocated),
            "allocated from {offset}: {rest:?}"
        );
        let rest = from(
            offset,
            &subject.delta(conduct, (&base, &target), offset, 2)?,
        );
        ensure!(
            rest == from(offset, &delta),
            "delta from {offset}: {rest:?}"
        );
    }
    subject.end(vec![base, target])
}

/// Many random histories; with the ranges of every pair, a copy of the earlier snapshot becomes the later one.
pub(crate) fn histories(plugin: &dyn Plugin, conduct: Conduct) -> Result<()> {
    let mut random = Random::from_environment("csi_drivers histories");
    let mut subject = Subject::new(plugin, "histories", SIZE)?;
    let mut stills = Vec::new();
    for number in 0..4 {
        for _ in 0..12 {
            edit(&mut subject, &mut random)?;
        }
        stills.push(subject.snapshot(&number.to_string())?);
    }
    for (place, target) in stills.iter().enumerate() {
        completes(
            &[],
            &target.content,
            &subject.allocated(conduct, target, 0, 7)?,
        )?;
        for base in &stills[..place] {
            let delta = subject.delta(conduct, (base, target), 0, 5)?;
            completes(&base.content, &target.content, &delta)?;
            let exact = delta
                .iter()
                .all(|(begin, end)| differ(base, target, *begin, *end, conduct.unit));
            ensure!(exact, "a block is listed that did not change: {delta:?}");
        }
    }
    subject.end(stills)
}

fn edit(subject: &mut Subject, random: &mut Random) -> Result<()> {
    let at = random.below(SIZE / 512) * 512;
    let size = (1 + random.below(64)) * 512;
    let size = size.min(SIZE - at);
    match random.below(4) {
        0 => subject.discard(at, size),
        1 => subject.write(at, &vec![0; usize::try_from(size)?]),
        _ => {
            let mut bytes = vec![0; usize::try_from(size)?];
            random.fill(&mut bytes);
            subject.write(at, &bytes)
        }
    }
}

/// Whether every unit of a range differs.
fn differ(base: &Still, target: &Still, begin: u64, end: u64, unit: u64) -> bool {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    (begin..end).step_by(index(unit)).all(|at| {
        let range = index(at)..index((at + unit).min(end));
        base.content[range.clone()] != target.content[range]
    })
}
