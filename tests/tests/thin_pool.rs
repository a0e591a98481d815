//! Backups of real thin snapshots, in a kernel of their own: the pool says what is allocated and what changed, and is not believed.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::image::MIB;
use tests::scratch::Scratch;
use tests::{snaphaul, uml};

const SIZE: u64 = 256 * MIB;

/// A pool with a volume of 256 MiB that holds 40, and what is done with snapshots of it. `do NAME WORDS…` keeps the result line
/// in NAME.
const SCRIPT: &str = r#"
mk() { name=$1; shift; dmsetup --noudevrules --noudevsync create "$name" --uuid "uuid-$name" --table "$*"; dmsetup mknodes; }
snap() {
    dmsetup --noudevrules --noudevsync suspend live
    dmsetup message pool 0 "create_snap $1 0"
    dmsetup --noudevrules --noudevsync resume live
    mk "s$1" 0 524288 thin /dev/mapper/pool "$1"
}
noise() { dd if=/dev/urandom of=/dev/mapper/live oflag=direct "$@"; }
do_it() { name=$1; shift; "$SNAPHAUL" "$@" --json >lines; tail -n 1 lines >"$name"; }
backup() { name=$1; shift; do_it "$name" backup "$@" --engine threads --repo repo --key-file key; }

mk tmeta 0 16384 linear /dev/ubda 0
mk tdata 0 1048576 linear /dev/ubda 16384
dd if=/dev/zero of=/dev/mapper/tmeta bs=4k count=1 conv=fsync
mk pool 0 1048576 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 0 1 no_discard_passdown
dmsetup message pool 0 create_thin 0
mk live 0 524288 thin /dev/mapper/pool 0
noise bs=1M count=40 seek=10
head -c 64 /dev/urandom >key
"$SNAPHAUL" init --repo repo --key-file key

snap 1
backup first /dev/mapper/s1 --volume v
noise bs=64k count=1 seek=200
noise bs=64k count=1 seek=3000
blkdiscard --offset 20971520 --length 1048576 /dev/mapper/live
snap 2
backup second /dev/mapper/s2 --volume v
"$SNAPHAUL" restore v@latest second.img --repo repo --key-file key
cmp second.img /dev/mapper/s2
do_it audit changed /dev/mapper/s2 --base /dev/mapper/s1 --audit
backup back /dev/mapper/s1 --volume v
"$SNAPHAUL" restore v@latest back.img --repo repo --key-file key
cmp back.img /dev/mapper/s1

dmsetup message pool 0 reserve_metadata_snap
backup busy /dev/mapper/s2 --volume v
backup named /dev/mapper/s2 --volume v --changed-blocks thin
dmsetup message pool 0 release_metadata_snap
backup live /dev/mapper/tdata --volume live --allow-live
dmsetup status pool >pool-status
"#;

fn result(folder: &Path, name: &str) -> Result<Value> {
    let line = std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())?;
    serde_json::from_str(&line).with_context(|| format!("{name}: {line}"))
}

fn says(result: &Value, who: &str, why: &str) -> Result<()> {
    ensure!(result["changed_blocks"] == who, "{result}");
    let reason = result["changed_blocks_reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(why), "not for `{why}`: {reason}");
    Ok(())
}

#[test]
fn thin_snapshots_are_backed_up_by_what_the_pool_says() -> Result<()> {
    let scratch = Scratch::new("thin")?;
    let folder = scratch.path();
    let binary = snaphaul::binary()?;
    let script = format!("SNAPHAUL='{}'\n{SCRIPT}", binary.display());
    uml::run(folder, 1 << 30, "dm-thin-pool", &script)?;

    let first = result(folder, "first")?;
    says(&first, "thin", "no parent")?;
    ensure!(first["base_needed_by"] == "thin", "{first}");
    ensure!(first["new_bytes"] == 40 * MIB, "{first}");
    // What the pool calls unallocated is looked at, not all of it read.
    let [read, sampled] = [&first["read_bytes"], &first["sampled_bytes"]].map(Value::as_u64);
    ensure!(sampled.is_some_and(|bytes| bytes >= 30 * MIB), "{first}");
    ensure!(read.is_some_and(|bytes| bytes < SIZE / 2), "{first}");

    let second = result(folder, "second")?;
    says(&second, "thin", "what changed since")?;
    ensure!(second["new_bytes"] == 256 << 10, "{second}");
    ensure!(second["sample_seed"] != first["sample_seed"], "{second}");
    let audit = &result(folder, "audit")?["audit"];
    ensure!(
        audit["untold_bytes"] == 0 && audit["wrong_zero_bytes"] == 0,
        "{audit}"
    );
    ensure!(audit["true_bytes"] == MIB + (128 << 10), "{audit}");

    says(&result(folder, "back")?, "scan", "step back")?;
    for name in ["busy", "named"] {
        let refused = result(folder, name)?;
        says(&refused, "scan", "already has a metadata snapshot")?;
        let warned = refused["warnings"].to_string();
        ensure!(
            warned.contains("already has a metadata snapshot"),
            "{refused}"
        );
    }
    says(&result(folder, "live")?, "scan", "is not a thin device")?;
    let status = std::fs::read_to_string(folder.join("pool-status"))?;
    ensure!(
        status.split_ascii_whitespace().nth(6) == Some("-"),
        "a metadata snapshot is left: {status}"
    );
    Ok(())
}
