//! Every real S3 server: the client of the tests itself, the store contract, whole backups, and faults on the way.
//!
//! `cargo test -p tests --test s3 -- ceph-rgw` runs the cases of one server, `-- contract` one case on each.

#[path = "s3/access.rs"]
mod access;
#[path = "s3/contract.rs"]
mod contract;
#[path = "s3/health.rs"]
mod health;
#[path = "s3/immutable.rs"]
mod immutable;
#[path = "s3/network.rs"]
mod network;
#[path = "s3/recover.rs"]
mod recover;
#[path = "s3/repair_role.rs"]
mod repair_role;
#[path = "s3/repository.rs"]
mod repository;
#[path = "s3/roles.rs"]
mod roles;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tests::bucket::Bucket;
use tests::cases::{self, Case, Site};

/// Servers without TLS, which the breaking proxy can stand in front of.
const PLAIN: &[&str] = &["s3s-fs", "seaweedfs", "minio"];
/// Servers with a user who may only read.
const WITH_READER: &[&str] = &["seaweedfs", "ceph-rgw"];
/// Servers that do not make a bucket on the way.
const NEEDS_BUCKET: &[&str] = &["seaweedfs", "minio", "ceph-rgw"];
/// Servers with Object Lock.
const WITH_LOCKS: &[&str] = &["minio", "ceph-rgw", "seaweedfs"];
/// Servers with Object Lock whose STS gives out roles to test.
const WITH_ROLES: &[&str] = &["minio"];
/// For faults that concern the client alone and take long.
const FAST: &[&str] = &["s3s-fs"];

fn main() -> ExitCode {
    let on = |name, run: fn(&Site) -> Result<()>, servers| Case { name, run, servers };
    let mut cases = vec![
        on("own_client", own_client, &[][..]),
        on("reader_is_refused", reader_is_refused, WITH_READER),
        on("contract", contract::every_case, &[]),
        on("round_trip", repository::round_trip, &[]),
        on(
            "one_of_two_inits_wins",
            repository::one_of_two_inits_wins,
            &[],
        ),
        on(
            "a_killed_backup_is_resumed",
            repository::a_killed_backup_is_resumed,
            &[],
        ),
        on("a_life_in_a_bucket", health::a_life_in_a_bucket, &[]),
        on("runs_at_once", repository::runs_at_once, &[]),
        on(
            "damage_is_found",
            repository::damage_is_found,
            &["seaweedfs", "ceph-rgw"],
        ),
        on(
            "prefixes_do_not_meet",
            repository::prefixes_do_not_meet,
            FAST,
        ),
        on(
            "without_conditional_writes",
            repository::without_conditional_writes,
            &[],
        ),
        on(
            "a_store_that_lies_is_found_out",
            repository::a_store_that_lies_is_found_out,
            FAST,
        ),
        on("requests_are_few", repository::requests_are_few, FAST),
        on("wrong_credentials", access::wrong_credentials, &[]),
        on(
            "credentials_from_a_profile",
            access::credentials_from_a_profile,
            FAST,
        ),
        on("bucket_missing", access::bucket_missing, NEEDS_BUCKET),
        on(
            "readers_may_restore",
            access::readers_may_restore,
            WITH_READER,
        ),
        on(
            "unknown_authority",
            access::unknown_authority,
            &["ceph-rgw"],
        ),
        on("endpoint_down", network::endpoint_down, FAST),
        on("a_storm_that_passes", network::a_storm_that_passes, PLAIN),
        on("a_storm_that_stays", network::a_storm_that_stays, FAST),
        on("cut_in_the_middle", network::cut_in_the_middle, PLAIN),
        on("lost_answers", network::lost_answers, PLAIN),
        on("broken_reads", network::broken_reads, PLAIN),
        on("slow_lines", network::slow_lines, FAST),
        on("down_in_the_middle", network::down_in_the_middle, FAST),
    ];
    cases.extend(immutability());
    if std::env::var_os("SNAPHAUL_TEST_LONG").is_some() {
        cases.push(on("silence", network::silence, FAST));
    }
    cases::run(&cases)
}

/// Cases that need Object Lock, and roles that are enforced.
fn immutability() -> Vec<Case> {
    let on = |name, run: fn(&Site) -> Result<()>, servers| Case { name, run, servers };
    vec![
        on(
            "purges_respect_locks",
            immutable::purges_respect_locks,
            WITH_LOCKS,
        ),
        on(
            "purges_free_versions",
            immutable::purges_free_versions,
            WITH_LOCKS,
        ),
        on(
            "verify_notices_what_was_put_over",
            immutable::verify_notices_what_was_put_over,
            WITH_LOCKS,
        ),
        on(
            "false_forget_orders_destroy_nothing",
            immutable::false_forget_orders_destroy_nothing,
            WITH_LOCKS,
        ),
        on(
            "places_without_locks_are_refused",
            immutable::places_without_locks_are_refused,
            WITH_LOCKS,
        ),
        on(
            "locks_are_extended_once_a_window",
            immutable::locks_are_extended_once_a_window,
            WITH_ROLES,
        ),
        on(
            "a_thief_is_survived",
            immutable::a_thief_is_survived,
            WITH_ROLES,
        ),
        on(
            "the_oldest_whole_version_comes_back",
            recover::the_oldest_whole_version_comes_back,
            WITH_ROLES,
        ),
        on("the_backup_role", roles::the_backup_role, WITH_ROLES),
        on("the_restore_role", roles::the_restore_role, WITH_ROLES),
        on("the_repair_role", repair_role::the_repair_role, WITH_ROLES),
        on(
            "forget_and_collector_roles",
            roles::forget_and_collector_roles,
            WITH_ROLES,
        ),
        on(
            "missing_rights_are_named",
            roles::missing_rights_are_named,
            WITH_ROLES,
        ),
        on(
            "a_condition_limits_locks",
            roles::a_condition_limits_locks,
            WITH_ROLES,
        ),
    ]
}

/// The servers are up, keep what they are given, and check signatures.
fn own_client(site: &Site) -> Result<()> {
    let body = vec![0x5a; 3_000_000];
    site.bucket.put("a/long name/ü+&.bin", &body)?;
    ensure!(site.bucket.get("a/long name/ü+&.bin")? == body);
    site.bucket.put("a/b", b"")?;
    ensure!(site.bucket.list("a/")?.len() == 2);
    site.bucket.delete("a/b")?;
    ensure!(site.bucket.list("a/b")?.is_empty());
    let mut stranger = site.endpoint.clone();
    stranger.owner.secret.push('x');
    ensure!(
        Bucket::new(&stranger, &site.bucket.name)
            .get("a/long name/ü+&.bin")
            .is_err()
    );
    Ok(())
}

/// The read-only user of the rig is read-only, so that tests about refusals test what they say.
fn reader_is_refused(site: &Site) -> Result<()> {
    site.bucket.put("kept", b"kept")?;
    site.bucket.let_read()?;
    let reader = site.reader_bucket()?;
    ensure!(reader.put("new", b"new").is_err());
    ensure!(reader.get("kept")? == b"kept");
    ensure!(reader.list("")? == ["kept"]);
    Ok(())
}
