//! Mistakes to plant, one at a time: the search must find each.

use super::super::Stage;

/// One mistake. The numbers are those of the protocol's description; letters tell variants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// None.
    Sound,
    /// The parent is checked before `open` is stored.
    M1CheckBeforeOpen,
    /// The parent is not checked.
    M1NoCheck,
    /// The check reads `open` first and the forget order last.
    M2TombLast,
    /// Acknowledged without a look at the own `open`.
    M3NoConfirm,
    /// A purge deletes the slot first.
    M4SlotFirst,
    /// A purge deletes the forget order first.
    M5TombFirst,
    /// The commit overwrites an abort marker.
    M6CommitOverwrites,
    /// The fence overwrites a manifest.
    M7FenceOverwrites,
    /// The data of a silent session is deleted without taking its slot.
    M7NoFence,
    /// Whoever has a manifest is a point.
    M8ManifestOnly,
    /// Pins keep nothing.
    M9NoPins,
    /// Open sessions keep nothing.
    M9NoKeep,
    /// A start record that is gone pins nothing.
    M10BodyGone,
    /// Liveness that is gone references nothing.
    M10LivenessGone,
    /// Data is adopted without taking the slot.
    M11NoTake,
    /// Adopted sessions are not kept.
    M11NotKept,
    /// No look at the adopted `open`.
    M12NoRecheck,
    /// The look at the adopted `open` comes before the slot is taken.
    M12CheckBefore,
    /// The slot is taken before the own `open` is stored.
    M13TakeBeforeOpen,
    /// `open` is stored again.
    M14Reopen,
    /// An abort marker alone makes inherited data usable.
    M15MarkerAlone,
    /// `open` names the dead session, but not what that had taken over.
    M15ShallowAdopts,
    /// The manifest is stored before the data.
    M16DataLast,
    /// A restore without start record.
    M17NoLease,
    /// Compaction deletes the old generation first.
    M18DeleteFirst,
    /// Compaction takes only unpinned points for live.
    M19Unpinned,
    /// The lower of two generations is kept.
    M19KeepLower,
    /// Roots are those whose start record is in the second listing.
    M20SecondListing,
    /// One listing of start records, after the slots.
    M21OpensAfter,
    /// One listing of start records, before the slots.
    M21OpensBefore,
    /// Forget orders are listed after the start records.
    M22TombsLate,
    /// Data is listed after the start records.
    M22DataLate,
    /// Slots are listed last.
    M22SlotsLast,
    /// With a register, the adopter does not look before the swap.
    M23NoLook,
    /// Owners of inherited data are believed although the chain was cut by a fence.
    CutChain,
    /// Copies are listed before everything else.
    CopiesFirst,
    /// A copy without start record or manifest keeps nothing.
    CopyIgnored,
    /// A purge leaves the liveness to the data.
    LivenessLate,
    /// Whoever reads through a copy does not check that the point is still there.
    NoCopyCheck,
    /// A collector copies a manifest without a look whether its start record is still there, before or after.
    MendUnconfirmed,
    /// Any order of the listings.
    Order([Stage; 5]),
}

use Stage::{Copies, Objects, OpensAfter, OpensBefore, Slots, Tombs};

impl Mutation {
    /// Which listings a collector makes, in order. Heartbeats and marks carry no safety.
    pub(super) fn listings(&self) -> &[Stage] {
        match self {
            Self::Order(order) => order,
            Self::M21OpensAfter => &[Objects, Tombs, Slots, OpensAfter],
            Self::M21OpensBefore => &[Objects, Tombs, OpensBefore, Slots],
            Self::CopiesFirst => &[Copies, Objects, Tombs, OpensBefore, Slots, OpensAfter],
            Self::M22TombsLate => &[Objects, OpensBefore, Tombs, Slots, OpensAfter],
            Self::M22DataLate => &[Tombs, OpensBefore, Objects, Slots, OpensAfter],
            Self::M22SlotsLast => &[Objects, Tombs, OpensBefore, OpensAfter, Slots],
            _ => &[Objects, Tombs, OpensBefore, Slots, OpensAfter, Copies],
        }
    }
}
