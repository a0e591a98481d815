//! Every planted mistake is found, within the bounds that suffice for it.

use super::bounds::{Adoption, Bounds, Parents};
use super::mutation::Mutation;
use super::search::World;

fn caught(mutation: Mutation, bounds: Bounds) {
    let outcome = World { bounds, mutation }.explore();
    let found = outcome
        .violation
        .unwrap_or_else(|| panic!("{mutation:?} was not found in {} states", outcome.states));
    eprintln!(
        "{mutation:?}: {} states, {} steps: {}",
        outcome.states, found.steps, found.property
    );
    if std::env::var_os("SNAPHAUL_TEST_TRACES").is_some() {
        eprintln!("{}", found.trace);
    }
}

/// One session, two collectors, one forget order, one fence.
fn one() -> Bounds {
    Bounds::new(1, (2, 2), 1, 1)
}

/// Two sessions, of which the second builds on the first.
fn child() -> Bounds {
    Bounds::new(2, (1, 1), 1, 1).parents(Parents::Previous)
}

/// The same with two collectors.
fn children() -> Bounds {
    Bounds::new(2, (2, 2), 1, 0).parents(Parents::Previous)
}

/// Three generations, the first of which is there, and two collectors.
fn grandchildren() -> Bounds {
    Bounds::new(3, (2, 2), 2, 0)
        .parents(Parents::Previous)
        .founded()
}

/// Two sessions, of which the second takes the first over.
fn heir() -> Bounds {
    Bounds::new(2, (1, 1), 0, 1).adoption(Adoption::Previous)
}

/// Three sessions, each of which takes over the one before it.
fn chain() -> Bounds {
    Bounds::new(3, (1, 1), 0, 1).adoption(Adoption::Previous)
}

macro_rules! caught {
    ($($name:ident: $mutation:ident in $bounds:expr;)*) => {
        $(#[test] fn $name() { caught(Mutation::$mutation, $bounds); })*
    };
}

caught! {
    m1_check_before_open: M1CheckBeforeOpen in child();
    m1_no_check: M1NoCheck in child();
    m2_tomb_last: M2TombLast in child();
    m3_no_confirm: M3NoConfirm in one();
    m4_slot_first: M4SlotFirst in one();
    m5_tomb_first: M5TombFirst in child();
    m6_commit_overwrites: M6CommitOverwrites in one();
    m7_fence_overwrites: M7FenceOverwrites in one();
    m7_no_fence: M7NoFence in one();
    m8_manifest_only: M8ManifestOnly in one();
    m9_no_pins: M9NoPins in child();
    m9_no_keep: M9NoKeep in one();
    m10_body_gone: M10BodyGone in grandchildren();
    m10_liveness_gone: M10LivenessGone in children();
    m11_no_take: M11NoTake in heir();
    m11_not_kept: M11NotKept in heir();
    m12_no_recheck: M12NoRecheck in heir();
    m12_check_before: M12CheckBefore in heir();
    m13_take_before_open: M13TakeBeforeOpen in heir();
    m14_reopen: M14Reopen in one();
    m15_marker_alone: M15MarkerAlone in chain();
    m15_shallow_adopts: M15ShallowAdopts in chain();
    m16_data_last: M16DataLast in one();
    m17_no_lease: M17NoLease in one().readers(1);
    m18_delete_first: M18DeleteFirst in one().compaction();
    m19_unpinned: M19Unpinned in Bounds::new(2, (1, 1), 1, 0).parents(Parents::Previous).readers(1).compaction();
    m19_keep_lower: M19KeepLower in one().compaction();
    m20_second_listing: M20SecondListing in children();
    m21_opens_after: M21OpensAfter in grandchildren();
    m21_opens_before: M21OpensBefore in child();
    m22_tombs_late: M22TombsLate in grandchildren();
    m22_data_late: M22DataLate in children();
    m22_slots_last: M22SlotsLast in child();
    m23_no_look: M23NoLook in Bounds::new(2, (1, 1), 1, 1).adoption(Adoption::Previous).register();
    cut_chain: CutChain in chain();
    copies_first: CopiesFirst in one().copies().losses(1);
    copy_ignored: CopyIgnored in one().copies().losses(1);
    liveness_late: LivenessLate in one().copies();
    mend_unconfirmed: MendUnconfirmed in one().copies().mends();
    no_copy_check: NoCopyCheck in one().copies().losses(1).readers(1);
}
