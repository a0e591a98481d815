use std::path::PathBuf;

use super::*;

fn record() -> Record {
    Record {
        pool: "LVM-a-tpool".to_owned(),
        device: "LVM-b".to_owned(),
        thin_id: 3,
        creation_time: 5,
        transaction: 8,
        mapped_blocks: 100,
        pool_time: 6,
        block_bytes: 65536,
        size: 1 << 30,
        origin: String::new(),
    }
}

fn pool() -> Pool {
    Pool {
        name: "vg-pool-tpool".to_owned(),
        uuid: "LVM-a-tpool".to_owned(),
        metadata: PathBuf::new(),
        block_bytes: 65536,
    }
}

fn details() -> Details {
    Details {
        thin_id: 3,
        mapped_blocks: 100,
        transaction: 8,
        creation_time: 5,
    }
}

#[test]
fn a_record_comes_back_from_its_facts() {
    let record = record();
    assert_eq!(Record::from_identity(&record.identity()).unwrap(), record);
    let pairs: Vec<_> = record.identity().pairs().collect();
    for (key, _) in &pairs {
        let fewer: Vec<_> = pairs
            .iter()
            .filter(|pair| pair.0 != *key)
            .cloned()
            .collect();
        assert!(
            Record::from_identity(&Identity::among(NAME, &fewer).unwrap()).is_err(),
            "{key}"
        );
    }
    let negative = record.identity().with("mapped_blocks", -1);
    assert!(Record::from_identity(&negative).is_err());
    assert!(Record::from_identity(&Identity::new("rbd")).is_err());
}

#[test]
fn another_pool_is_refused() {
    let check = |change: &dyn Fn(&mut Record, &mut Pool)| {
        let (mut record, mut pool) = (record(), pool());
        change(&mut record, &mut pool);
        record.check_pair(&pool, None)
    };
    assert!(check(&|_, _| {}).is_ok());
    assert!(check(&|record, _| record.pool = "other".to_owned()).is_err());
    assert!(check(&|record, _| record.block_bytes = 4096).is_err());
    assert!(check(&|record, _| record.origin = "x".to_owned()).is_err());
    let nameless = check(&|record, pool| {
        record.pool.clear();
        pool.uuid.clear();
    });
    assert!(nameless.is_err());
}

#[test]
fn an_external_origin_is_the_same_and_cannot_change() {
    let check = |uuid: &str, read_only, recorded: &str| {
        let mut record = record();
        recorded.clone_into(&mut record.origin);
        let origin = Origin {
            uuid: uuid.to_owned(),
            read_only,
        };
        record.check_pair(&pool(), Some(&origin)).is_ok()
    };
    assert!(check("o", true, "o"));
    assert!(!check("o", false, "o"));
    assert!(!check("o", true, "p"));
    assert!(!check("o", true, ""));
    assert!(!check("", true, ""));
}

#[test]
fn a_device_that_changed_is_refused() {
    let superblock = |time| Superblock {
        time,
        block_sectors: 128,
    };
    let check = |time, now| {
        record()
            .check_device(superblock(time), now)
            .map_err(|error| error.message)
    };
    let same = Some(details());
    assert_eq!(check(6, same), Ok(details()));
    assert_eq!(check(9, same), Ok(details()));
    let reason = |time, now, part: &str| {
        let message = check(time, now).unwrap_err();
        assert!(message.contains(part), "{message}");
    };
    reason(5, same, "went back");
    reason(6, None, "deleted: the pool has no");
    reason(
        6,
        Some(Details {
            creation_time: 6,
            ..details()
        }),
        "given to another",
    );
    reason(
        6,
        Some(Details {
            transaction: 9,
            ..details()
        }),
        "given to another",
    );
    reason(
        6,
        Some(Details {
            mapped_blocks: 99,
            ..details()
        }),
        "written to",
    );
}

#[test]
fn an_older_snapshot_of_the_same_pool_goes_back() {
    let base = record();
    let made = |creation_time| Record {
        thin_id: 9,
        creation_time,
        ..record()
    };
    assert!(made(4).goes_back(&base).unwrap().contains("thin id 9"));
    assert_eq!(made(5).goes_back(&base), None);
    assert_eq!(made(6).goes_back(&base), None);
    let elsewhere = Record {
        pool: "LVM-c-tpool".to_owned(),
        ..made(4)
    };
    assert_eq!(elsewhere.goes_back(&base), None);
}
