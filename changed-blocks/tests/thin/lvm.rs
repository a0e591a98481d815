//! A thin pool of LVM with snapshots, as people have them.

use std::fs;
use std::path::Path;
use std::process::Command;

use changed_blocks::contract::{check_allocated, check_delta};
use changed_blocks::{Base, ChangedBlocks, ExtentKind};

use crate::bytes::{different, not_zero};
use crate::contract::{MIB, bind, delta, open};
use crate::inside::Site;
use crate::pool;

/// LVM reads and writes nothing outside the folder: the machine's root is the host's. There is neither udev nor a daemon.
fn configure(site: &Site) {
    let folder = site.folder.display();
    let text = format!(
        "devices {{ dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source=\"none\"
types=[\"ubd\",16] filter=[\"a|^/dev/ubda$|\",\"r|.*|\"] }}
activation {{ udev_sync=0 udev_rules=0 monitoring=0 thin_pool_autoextend_threshold=100 }}
global {{ event_activation=0 use_lvmpolld=0 use_lvmlockd=0 locking_type=1 locking_dir=\"/run/lvm-lock\" thin_check_executable=\"\"
thin_repair_executable=\"\" etc=\"{folder}\" }}
backup {{ backup=0 archive=0 backup_dir=\"{folder}\" archive_dir=\"{folder}\" }}
log {{ syslog=0 }}
"
    );
    fs::write(site.folder.join("lvm.conf"), text).unwrap();
}

fn lvm(site: &Site, line: &str) -> String {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let output = Command::new("lvm")
        .args(&words)
        .env("LVM_SYSTEM_DIR", &site.folder)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{line}: {} {complaint}",
        output.status
    );
    pool::run("dmsetup", &["mknodes"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn held() -> String {
    let status = pool::run("dmsetup", &["status", "group-pool-tpool"]);
    status.split_ascii_whitespace().nth(6).unwrap().to_owned()
}

pub(crate) fn thin_pool(site: &mut Site) {
    configure(site);
    lvm(site, &format!("pvcreate -ff -y {}", pool::DISK));
    lvm(site, &format!("vgcreate group {}", pool::DISK));
    lvm(
        site,
        "lvcreate -y -T -L 256M -c 64k -V 64M -n data group/pool",
    );
    let live = Path::new("/dev/mapper/group-data");
    pool::write(live, 0, &site.random.bytes(8 << 20));
    pool::write(live, 40 * MIB, &site.random.bytes(1 << 20));
    lvm(site, "lvcreate -y -s -n monday group/data");
    pool::write(live, 3 * MIB, &site.random.bytes(512));
    pool::write(live, 50 * MIB, &site.random.bytes(100_000));
    pool::discard(live, 40 * MIB, 1 << 20);
    lvm(site, "lvcreate -y -s -n tuesday group/data");
    lvm(site, "lvchange -ay -K group/monday group/tuesday");
    let [monday, tuesday] =
        ["monday", "tuesday"].map(|name| Path::new("/dev/mapper").join(format!("group-{name}")));
    let [old, new] = [&monday, &tuesday].map(|path| pool::read(path));

    let record = open(&monday, site).identity().unwrap();
    for fact in ["pool", "device"] {
        assert!(record.fact(fact).unwrap().starts_with("LVM-"), "{record:?}");
    }
    assert!(record.fact("pool").unwrap().ends_with("-tpool"));
    assert_eq!(
        record.fact("thin_id").unwrap(),
        lvm(site, "lvs --noheadings -o thin_id group/monday").trim()
    );
    // The base need not be active.
    lvm(site, "lvchange -an group/monday");
    let mut target = open(&tuesday, site);
    check_allocated(&mut target, 64 * MIB, &not_zero(&new));
    bind(&mut target, &record).unwrap();
    check_delta(&mut target, 64 * MIB, &different(&old, &new));
    let extents = delta(&mut target, 64 * MIB).unwrap();
    let told: u64 = extents.iter().map(|extent| extent.len.0).sum();
    assert_eq!(told, 65_536 + 2 * 65_536 + MIB, "{extents:?}");
    assert_eq!(
        extents
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Zero)
            .count(),
        1
    );

    // Named: it must be active, and be the one.
    let mut bind_to = |named: &Path| {
        let named = named.display().to_string();
        let base = Base {
            record: &record,
            point: "point",
            named: Some(&named),
        };
        target.bind(&base).map_err(|error| error.message)
    };
    assert!(
        bind_to(&tuesday)
            .unwrap_err()
            .contains("the device named is")
    );
    assert!(bind_to(&monday).is_err());
    lvm(site, "lvchange -ay -K group/monday");
    bind_to(&monday).unwrap();

    // A base that was merged back, or removed, is gone; its thin id goes to the next.
    let wednesday = open(&tuesday, site).identity().unwrap();
    lvm(site, "lvremove -y group/monday");
    assert!(bind(&mut target, &record).unwrap_err().contains("deleted"));
    lvm(site, "lvcreate -y -s -n monday group/data");
    assert!(bind(&mut target, &record).unwrap_err().contains("deleted"));
    bind(&mut target, &wednesday).unwrap();
    assert_eq!(delta(&mut target, 64 * MIB).unwrap(), []);
    assert_eq!(held(), "-");
    lvm(site, "vgchange -an group");
    lvm(site, "vgremove -y -f group");
}
