//! Which snapshot is the base of the newest point, where the note and the point do not say the same.
//!
//! Owns: the judgement, before anything is made. Must not: delete a snapshot, or write a note.
//!
//! ```text
//!   the point was made from ──► it is there, taken then ──► it is the base; what else is noted goes
//!                           ──► its id is another snapshot's ──► nobody is asked for a delta from that
//!                           ──► it is gone ──► what is noted goes after this run, as always
//! ```
//!
//! The folder of notes may be lost, or be another one; a note may be of a time since which another node backed the volume up; and a
//! driver may give the id of a snapshot that is gone to another one. So a snapshot is known by id, volume and time.

use super::base::KeptBase;
use super::driver::{Driver, MadeSnapshot};
use super::sweep::with_causes;
use crate::error::Result;

/// Some drivers tell the time of a snapshot to the second in one answer and exactly in another.
const SAME_MOMENT: u128 = 1_000_000_000;

/// The snapshot that the newest point was made from, as that point says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What the driver calls it.
    pub id: String,
    /// When it was taken: seconds and nanoseconds, where that was recorded.
    pub created: Option<(i64, i32)>,
}

/// What a driver says of a snapshot that is noted or recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is there.
    Same,
    /// Another one has its id.
    Other,
    /// It is not there.
    Gone,
}

/// Whom to ask about a snapshot by this id, which was taken then.
type Look<'a> = dyn Fn(&str, Option<(i64, i32)>) -> Result<Seen> + 'a;

/// What follows from what is noted, recorded and there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// To be noted as the base.
    pub adopted: Option<Recorded>,
    /// Noted, and no base: to be deleted.
    pub stale: Vec<KeptBase>,
    /// Noted, and by now the id of somebody else's snapshot: to be forgotten only.
    pub foreign: Vec<KeptBase>,
    /// A snapshot that no delta may be asked from, and why.
    pub refused: Option<(String, String)>,
    /// What a person should know.
    pub told: Vec<String>,
}

/// Judges what is noted for a volume. Caller holds the volume.
pub(super) fn judge(
    driver: &Driver,
    volume: &str,
    noted: Vec<KeptBase>,
    recorded: Option<&Recorded>,
) -> Judged {
    if !driver.abilities.list_snapshots {
        return Judged::default();
    }
    let look = |id: &str, created: Option<(i64, i32)>| {
        let found = driver.find_snapshot_of(id, volume)?;
        Ok(seen(found.as_ref(), volume, created))
    };
    decide(noted, recorded, &look)
}

/// Whether the id of a noted snapshot is somebody else's by now, where the driver can tell.
pub(super) fn is_somebodys(driver: &Driver, base: &KeptBase) -> Result<bool> {
    if !driver.abilities.list_snapshots {
        return Ok(false);
    }
    let found = driver.find_snapshot_of(&base.snapshot, &base.volume)?;
    Ok(seen(found.as_ref(), &base.volume, base.created) == Seen::Other)
}

fn seen(found: Option<&MadeSnapshot>, volume: &str, created: Option<(i64, i32)>) -> Seen {
    match found {
        None => Seen::Gone,
        Some(found) if !found.is_of(volume) => Seen::Other,
        Some(found) => match (found.created, created) {
            (Some(one), Some(other)) if nanos(one).abs_diff(nanos(other)) > SAME_MOMENT => {
                Seen::Other
            }
            // Who says no time contradicts nothing.
            _ => Seen::Same,
        },
    }
}

fn nanos((seconds, nanos): (i64, i32)) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}

fn decide(noted: Vec<KeptBase>, recorded: Option<&Recorded>, look: &Look<'_>) -> Judged {
    let is_recorded = |base: &KeptBase| recorded.is_some_and(|it| it.id == base.snapshot);
    // As it is after every run that ended well: nobody needs to be asked.
    if noted.len() < 2 && noted.iter().all(is_recorded) && (!noted.is_empty() || recorded.is_none())
    {
        return Judged::default();
    }
    let mut judged = Judged::default();
    if let Err(error) = judged.weigh(noted, recorded, look) {
        // Nothing is done by half: the next run asks again.
        let id = recorded.map_or("that is noted", |it| &it.id);
        judged = Judged::default();
        judged.told.push(format!(
            "whether snapshot {id} of the newest point is still there is not known: {}",
            with_causes(&error)
        ));
    }
    judged
}

impl Judged {
    fn weigh(
        &mut self,
        mut noted: Vec<KeptBase>,
        recorded: Option<&Recorded>,
        look: &Look<'_>,
    ) -> Result<()> {
        let has_base = self.weigh_recorded(&noted, recorded, look)?;
        if has_base {
            noted.retain(|base| recorded.is_none_or(|it| it.id != base.snapshot));
        } else if !noted.is_empty() {
            // Without a base that stays, one of those that go does so after this run, as always.
            let last = noted.remove(0);
            if look(&last.snapshot, last.created)? == Seen::Other {
                self.told.push(somebodys(&last));
                self.foreign.push(last);
            }
        }
        for base in noted {
            if look(&base.snapshot, base.created)? == Seen::Other {
                self.told.push(somebodys(&base));
                self.foreign.push(base);
            } else {
                self.stale.push(base);
            }
        }
        Ok(())
    }

    /// Whether the snapshot of the newest point is the base.
    fn weigh_recorded(
        &mut self,
        noted: &[KeptBase],
        recorded: Option<&Recorded>,
        look: &Look<'_>,
    ) -> Result<bool> {
        let Some(recorded) = recorded else {
            return Ok(false);
        };
        let is_noted = noted.iter().any(|base| base.snapshot == recorded.id);
        let seen = if is_noted {
            Seen::Same
        } else {
            look(&recorded.id, recorded.created)?
        };
        if seen == Seen::Same && noted.first().is_none_or(|it| it.snapshot != recorded.id) {
            self.adopted = Some(recorded.clone());
        }
        match seen {
            Seen::Same if !is_noted => self.told.push(format!(
                "snapshot {} of the newest point was not noted here, and is again",
                recorded.id
            )),
            Seen::Other => {
                let why = format!(
                    "the parent was made from snapshot {}, and another one has that id now",
                    recorded.id
                );
                self.told.push(why.clone());
                self.refused = Some((recorded.id.clone(), why));
            }
            Seen::Same | Seen::Gone => {}
        }
        Ok(seen == Seen::Same)
    }
}

fn somebodys(base: &KeptBase) -> String {
    format!(
        "snapshot {} was kept for {}, and another one has that id now: it is left alone",
        base.snapshot, base.volume
    )
}

impl Driver {
    /// The snapshot that has this id now, whatever it is one of.
    fn find_snapshot_of(&self, id: &str, volume: &str) -> Result<Option<MadeSnapshot>> {
        match self.find_snapshot(id, volume)? {
            Some(found) => Ok(Some(found)),
            // Asked for both, a driver says nothing of one of another volume.
            None => Ok(self.find_any_snapshot(id)?),
        }
    }
}

#[cfg(test)]
mod tests;
