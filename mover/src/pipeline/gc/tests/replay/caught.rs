//! Mistakes planted in the requests of the code are noticed.

use super::*;

/// The bounds whose traces notice a mistake first.
fn caught(bend: Bend, name: &str) {
    let traces = traces::searched(name, 500);
    let failure = traces.iter().find_map(|trace| play(trace, bend).err());
    let failure = failure.unwrap_or_else(|| panic!("{bend:?} goes unnoticed"));
    eprintln!("{bend:?}: {}", failure.lines().next().unwrap());
}

macro_rules! caught {
    ($($test:ident: $bend:ident in $name:expr;)*) => {
        $(#[test] fn $test() { caught(Bend::$bend, $name); })*
    };
}

caught! {
    m1_tomb_unseen: TombUnseen in "child";
    m3_no_confirm: NoConfirm in "duplicates";
    m4_slot_first: SlotFirst in "duplicates";
    m6_commit_overwrites: CommitOverwrites in "duplicates";
    m9_no_records: NoRecords in "duplicates";
    m18_delete_first: DeleteFirst in "compaction";
    first_page: FirstPage in "pages";
    no_mends: NoMends in "mends";
    m21_one_listing: OneListing in "child";
}
