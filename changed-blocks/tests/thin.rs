//! Real thin devices: a kernel in User Mode Linux runs this same binary, and the cases in it, on pools of its own.
//!
//! ```text
//!   cargo test ─► this binary ─► linux.uml, root = the host's files ─► this binary again ─► cases ─► results file ─► this binary
//! ```
//!
//! `cargo test -p changed-blocks --test thin -- reservation` runs the cases whose name has `reservation` in it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed case panics; without the harness the lints take no function for a test"
)]

#[path = "thin/bases.rs"]
mod bases;
#[path = "thin/bytes.rs"]
mod bytes;
#[path = "thin/contract.rs"]
mod contract;
#[path = "thin/histories.rs"]
mod histories;
#[path = "thin/inside.rs"]
mod inside;
#[path = "thin/lvm.rs"]
mod lvm;
#[path = "thin/machine.rs"]
mod machine;
#[path = "thin/pool.rs"]
mod pool;
#[path = "thin/reservations.rs"]
mod reservations;

use std::process::ExitCode;

use inside::Case;

/// Name and body of each case.
const CASES: &[Case] = &[
    ("contract", contract::passes),
    (
        "contract_with_an_external_origin",
        contract::passes_with_an_external_origin,
    ),
    (
        "what_is_no_thin_device_is_refused",
        contract::refuses_other_devices,
    ),
    (
        "a_pool_without_uuid_has_no_identity",
        contract::names_nothing_without_uuid,
    ),
    ("sizes_that_differ", contract::sizes_that_differ),
    ("histories", histories::plain),
    ("histories_with_an_external_origin", histories::with_origin),
    ("base_newer_than_the_target", bases::newer_than_the_target),
    ("base_deleted", bases::deleted),
    ("base_deleted_and_id_reused", bases::id_reused),
    ("base_written_after_its_backup", bases::written_after),
    ("base_written_before_its_backup", bases::written_before),
    ("base_that_is_no_snapshot", bases::no_snapshot),
    ("base_of_another_pool", bases::of_another_pool),
    ("base_named", bases::named),
    (
        "base_with_another_external_origin",
        bases::of_another_origin,
    ),
    (
        "reservation_released_after_success_and_failure",
        reservations::released,
    ),
    (
        "reservation_released_after_a_panic",
        reservations::released_after_a_panic,
    ),
    (
        "reservation_of_a_killed_run_released",
        reservations::of_a_killed_run,
    ),
    (
        "reservation_of_runs_killed_at_any_time",
        reservations::of_runs_killed_at_any_time,
    ),
    ("reservation_that_is_foreign_kept", reservations::foreign),
    ("reservation_of_unknown_origin_kept", reservations::unknown),
    (
        "reservations_of_two_runs_take_turns",
        reservations::two_runs,
    ),
    ("pool_out_of_metadata", reservations::out_of_metadata),
    ("lvm_thin_pool", lvm::thin_pool),
];

fn main() -> ExitCode {
    if let Some(code) = inside::run(CASES) {
        return code;
    }
    machine::run(CASES)
}
