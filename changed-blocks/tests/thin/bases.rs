//! Bases that are gone, changed, or others than recorded: each is refused with its reason.

use std::path::{Path, PathBuf};

use changed_blocks::{Base, ChangedBlocks, Identity, Thin};

use crate::contract::{MIB, Origin, bind, delta, open};
use crate::inside::Site;
use crate::pool::{self, Pool, SMALL};

const SIZE: u64 = 4 * MIB;

/// A volume 0 with data, its snapshot 1, which was backed up, and its snapshot 2, the target.
struct Setting {
    pool: Pool,
    base: PathBuf,
    record: Identity,
    target: Thin,
}

fn setting(site: &mut Site) -> Setting {
    let pool = Pool::new("bases", "bases-pool", 0, SMALL);
    pool.create_thin(0);
    let live = pool.activate(0, SIZE);
    pool::write(&live, 0, &site.random.bytes(1 << 20));
    pool.create_snap(1, 0);
    let base = pool.activate(1, SIZE);
    let record = open(&base, site).identity().unwrap();
    pool::write(&live, 0, &site.random.bytes(4096));
    pool.create_snap(2, 0);
    let target = open(&pool.activate(2, SIZE), site);
    Setting {
        pool,
        base,
        record,
        target,
    }
}

/// Checks that the base is refused, by binding or by the delta, and why.
fn refused(setting: &mut Setting, why: &str) {
    let Setting { target, record, .. } = setting;
    let reason = match bind(target, record) {
        Err(reason) => reason,
        Ok(()) => delta(target, SIZE).expect_err("a base that may not be compared with"),
    };
    assert!(reason.contains(why), "{reason}");
    assert_eq!(setting.pool.held(), "-");
}

/// Snapshots taken in the wrong order: the delta is right, and the consumer is told.
pub(crate) fn newer_than_the_target(site: &mut Site) {
    let Setting {
        pool: _pool,
        base,
        record,
        mut target,
    } = setting(site);
    assert_eq!(target.goes_back(&record), None);
    assert_eq!(target.goes_back(&target.identity().unwrap()), None);
    let newer = target.identity().unwrap();
    let mut older = open(&base, site);
    assert!(older.goes_back(&newer).unwrap().contains("older"));
    bind(&mut older, &newer).unwrap();
    let back = delta(&mut older, SIZE).unwrap();
    bind(&mut target, &record).unwrap();
    assert_eq!(delta(&mut target, SIZE).unwrap(), back);
}

pub(crate) fn deleted(site: &mut Site) {
    let mut setting = setting(site);
    setting.pool.delete(1);
    refused(
        &mut setting,
        "it was deleted: the pool has no thin device 1",
    );
}

pub(crate) fn id_reused(site: &mut Site) {
    let mut setting = setting(site);
    setting.pool.delete(1);
    // By an empty device, by one with as many blocks as the base had, by a snapshot of the same volume.
    setting.pool.create_thin(1);
    refused(&mut setting, "given to another");
    let reused = setting.pool.activate(1, SIZE);
    pool::write(&reused, 0, &site.random.bytes(1 << 20));
    refused(&mut setting, "given to another");
    setting.pool.delete(1);
    setting.pool.create_snap(1, 0);
    refused(&mut setting, "given to another");
}

pub(crate) fn written_after(site: &mut Site) {
    let mut setting = setting(site);
    bind(&mut setting.target, &setting.record).unwrap();
    assert!(
        delta(&mut setting.target, SIZE).is_ok(),
        "an unwritten base"
    );
    // A block that it had: as many as before.
    pool::write(&setting.base, 65_536, &site.random.bytes(512));
    refused(&mut setting, "was written to since it was made (block 1)");
    pool::write(&setting.base, 65_536, &site.random.bytes(512));
    refused(&mut setting, "was written to since it was made (block 1)");
    pool::write(&setting.base, 2 * MIB, &site.random.bytes(512));
    refused(
        &mut setting,
        "it was written to after its backup: it maps 17 blocks, not 16",
    );

    // Discarded, and then as many blocks as before.
    drop(setting);
    let mut setting = self::setting(site);
    pool::discard(&setting.base, 65_536, 65_536);
    refused(&mut setting, "it maps 15 blocks, not 16");
    pool::write(&setting.base, 3 * MIB, &site.random.bytes(512));
    refused(&mut setting, "was written to since it was made (block 48)");
    pool::discard(&setting.base, 3 * MIB, 65_536);
    refused(&mut setting, "it maps 15 blocks, not 16");
}

pub(crate) fn written_before(site: &mut Site) {
    let mut setting = setting(site);
    pool::write(&setting.base, 65_536, &site.random.bytes(512));
    setting.record = open(&setting.base, site).identity().unwrap();
    refused(&mut setting, "leave no trace");
}

pub(crate) fn no_snapshot(site: &mut Site) {
    let mut setting = setting(site);
    // The volume itself, recorded as it is now.
    setting.record = open(Path::new("/dev/mapper/bases-0"), site)
        .identity()
        .unwrap();
    refused(&mut setting, "(thin id 0) is no snapshot");
}

pub(crate) fn of_another_pool(site: &mut Site) {
    let mut setting = setting(site);
    let record = setting.record.clone();
    setting.record = record.clone().with("pool", "other-pool");
    refused(
        &mut setting,
        "it was in the pool other-pool, the target is in bases-pool",
    );
    setting.record = record.clone().with("block_size", 4096);
    refused(&mut setting, "blocks of 4096 bytes, not 65536");
    setting.record = record.clone().with("pool_time", 1000);
    refused(&mut setting, "older metadata were put back");
    setting.record = record.with("thin_id", "one");
    refused(&mut setting, "no number as thin_id");
    setting.record = Identity::new("rbd").with("image", 1);
    refused(&mut setting, "the parent was made by rbd");
}

pub(crate) fn named(site: &mut Site) {
    let Setting {
        pool,
        base,
        record,
        mut target,
    } = setting(site);
    let mut bind_to = |named: &str| {
        let base = Base {
            record: &record,
            point: "point",
            named: Some(named),
        };
        target.bind(&base).map_err(|error| error.message)
    };
    bind_to(&base.display().to_string()).unwrap();
    let other = bind_to("/dev/mapper/bases-0").unwrap_err();
    assert!(other.contains("the device named is"), "{other}");
    assert!(bind_to("/dev/mapper/nothing").is_err());
    assert!(
        bind_to("/dev/mapper/bases")
            .unwrap_err()
            .contains("is not a thin device")
    );
    // The last refusal unbound the target.
    assert!(
        delta(&mut target, SIZE)
            .unwrap_err()
            .contains("without a base")
    );
    drop(pool);
}

pub(crate) fn of_another_origin(site: &mut Site) {
    let origin = Origin::new("origin-one", "uuid-one", site);
    let pool = Pool::new("origins", "origins-pool", 0, SMALL);
    pool.create_thin(0);
    let live = pool.activate_with(0, SIZE, &origin.path);
    pool::write(&live, 0, &site.random.bytes(4096));
    pool.create_snap(1, 0);
    let base = pool.activate_with(1, SIZE, &origin.path);
    let record = open(&base, site).identity().unwrap();
    pool.create_snap(2, 0);
    let ask = |with: &str| {
        let mut target = open(&pool.activate_with(2, SIZE, with), site);
        let answer = bind(&mut target, &record);
        pool.deactivate(2);
        answer
    };
    ask(&origin.path).unwrap();
    assert!(
        ask("")
            .unwrap_err()
            .contains("external origin uuid-one, the target has none")
    );
    let other = Origin::again("origin-two", "uuid-two", true);
    assert!(
        ask(&other.path)
            .unwrap_err()
            .contains("the target has the external origin uuid-two")
    );
    let nameless = Origin::again("origin-three", "", true);
    assert!(
        ask(&nameless.path)
            .unwrap_err()
            .contains("nothing names it")
    );
    // The same device, but open to writers.
    drop(base);
    pool.deactivate(1);
    pool.deactivate(0);
    drop(origin);
    let writable = Origin::again("origin-one", "uuid-one", false);
    assert!(
        ask(&writable.path)
            .unwrap_err()
            .contains("can be written to")
    );
}
