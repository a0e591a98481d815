//! The contract of every source, on one pair of snapshots; devices that are refused; sizes that differ.

use std::path::Path;

use changed_blocks::contract::{check_allocated, check_delta, check_without_base};
use changed_blocks::source::SourceErrorKind;
use changed_blocks::{Base, ChangedBlocks, Extent, ExtentKind, ExtentSet, Thin};

use crate::bytes::{different, not_zero, part};
use crate::inside::Site;
use crate::pool::{self, Pool, SMALL};

pub(crate) const MIB: u64 = 1 << 20;

/// A source for the device at `path`.
pub(crate) fn open(path: &Path, site: &Site) -> Thin {
    Thin::open(path, &site.notes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Binds `target` to the base that `base` was when it recorded itself.
pub(crate) fn bind(target: &mut Thin, base: &changed_blocks::Identity) -> Result<(), String> {
    let base = Base {
        record: base,
        point: "point",
        named: None,
    };
    target.bind(&base).map_err(|error| {
        assert_eq!(error.kind, SourceErrorKind::FullBackup, "{error}");
        error.message
    })
}

/// The extents of a delta, or why there is none.
pub(crate) fn delta(target: &mut Thin, size: u64) -> Result<Vec<Extent>, String> {
    let (mut extents, mut end) = (Vec::new(), 0);
    let answer = target.delta(&mut |extent: Extent| {
        assert!(
            end <= extent.offset.0 && extent.len.0 > 0,
            "{extent:?} behind {end}"
        );
        end = extent.end().unwrap();
        extents.push(extent);
        true
    });
    let summary = answer.map_err(|error| {
        assert_eq!(error.kind, SourceErrorKind::FullBackup, "{error}");
        error.message
    })?;
    assert!(end <= size);
    assert_eq!(
        (summary.size.0, summary.extents),
        (size, extents.len() as u64)
    );
    Ok(extents)
}

/// Fills a device with something in some places, and changes some of it after a snapshot.
fn pair(pool: &Pool, site: &mut Site, origin: &str) -> [std::path::PathBuf; 2] {
    pool.create_thin(0);
    let live = pool.activate_with(0, 16 * MIB, origin);
    pool::write(&live, 0, &site.random.bytes(1 << 20));
    pool::write(&live, 5 * MIB, &site.random.bytes(300_032));
    pool.create_snap(1, 0);
    pool::write(&live, 65_536, &site.random.bytes(512));
    pool::write(&live, 9 * MIB, &site.random.bytes(4096));
    pool::discard(&live, 5 * MIB, 131_072);
    pool.create_snap(2, 0);
    [1, 2].map(|id| pool.activate_with(id, 16 * MIB, origin))
}

fn check_pair(site: &Site, [one, two]: &[std::path::PathBuf; 2]) -> Vec<Extent> {
    let [old, new] = [one, two].map(|path| pool::read(path));
    let mut target = open(two, site);
    check_without_base(&mut target);
    check_allocated(&mut target, 16 * MIB, &not_zero(&new));
    bind(&mut target, &open(one, site).identity().unwrap()).unwrap();
    check_delta(&mut target, 16 * MIB, &different(&old, &new));
    let extents = delta(&mut target, 16 * MIB).unwrap();
    let zero = extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Zero);
    for extent in zero {
        assert!(
            part(&new, *extent).iter().all(|byte| *byte == 0),
            "{extent:?} is not zero"
        );
    }
    extents
}

pub(crate) fn passes(site: &mut Site) {
    let pool = Pool::new("contract", "contract-pool", 0, SMALL);
    let paths = pair(&pool, site, "");
    let extents = check_pair(site, &paths);
    let expected = [
        Extent::data(65_536, 65_536),
        Extent::zero(5 * MIB, 131_072),
        Extent::data(9 * MIB, 65_536),
    ];
    assert_eq!(extents, expected);
    let mut target = open(&paths[0], site);
    let mut allocated = Vec::new();
    let summary = target.allocated(&mut |extent| {
        allocated.push(extent);
        true
    });
    assert_eq!(summary.unwrap().extents, 2);
    assert_eq!(
        allocated,
        [Extent::data(0, MIB), Extent::data(5 * MIB, 5 * 65_536)]
    );
    // A snapshot against itself.
    let own = target.identity().unwrap();
    bind(&mut target, &own).unwrap();
    assert_eq!(delta(&mut target, 16 * MIB).unwrap(), []);
}

pub(crate) fn passes_with_an_external_origin(site: &mut Site) {
    let origin = Origin::new("external-origin", "origin-uuid", site);
    let pool = Pool::new("external", "external-pool", 0, SMALL);
    let paths = pair(&pool, site, &origin.path);
    let extents = check_pair(site, &paths);
    assert!(
        extents.iter().all(|extent| extent.kind == ExtentKind::Data),
        "{extents:?}"
    );
    // What was discarded shows the origin again, and is not zero.
    let told: ExtentSet = extents.into_iter().collect();
    let discarded: ExtentSet = [Extent::data(5 * MIB, 131_072)].into_iter().collect();
    assert!(discarded.subtract(&told).is_empty());
    assert!(
        pool::read(&paths[1])[5 << 20..][..131_072]
            .iter()
            .any(|byte| *byte != 0)
    );
}

/// A device full of random bytes that cannot be written to.
pub(crate) struct Origin {
    name: String,
    pub(crate) path: String,
}

impl Origin {
    /// It takes the last part of the disk; of half the size of the devices on it, so that its end is inside of theirs.
    pub(crate) fn new(name: &str, uuid: &str, site: &mut Site) -> Self {
        let start = pool::LVM_SECTORS + 2 * (2 << 20);
        let table = format!("0 {} linear {} {start}", 8 * MIB / 512, pool::DISK);
        let filled = pool::create("filler", "", &table);
        pool::write(&filled, 0, &site.random.bytes(8 << 20));
        pool::remove("filler");
        Self::again(name, uuid, true)
    }

    /// The same bytes under another name.
    pub(crate) fn again(name: &str, uuid: &str, read_only: bool) -> Self {
        let start = pool::LVM_SECTORS + 2 * (2 << 20);
        let table = format!("0 {} linear {} {start}", 8 * MIB / 512, pool::DISK);
        let path = pool::create(name, uuid, &table).display().to_string();
        if read_only {
            pool::run(
                "dmsetup",
                &[
                    "--noudevrules",
                    "--noudevsync",
                    "--readonly",
                    "reload",
                    name,
                    "--table",
                    &table,
                ],
            );
            pool::run(
                "dmsetup",
                &["--noudevrules", "--noudevsync", "suspend", name],
            );
            pool::run(
                "dmsetup",
                &[
                    "--noudevrules",
                    "--noudevsync",
                    "--readonly",
                    "resume",
                    name,
                ],
            );
        }
        Self {
            name: name.to_owned(),
            path,
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        pool::remove(&self.name);
    }
}

pub(crate) fn refuses_other_devices(site: &mut Site) {
    let kind = |path: &Path| Thin::open(path, &site.notes()).unwrap_err();
    let linear = Origin::again("linear", "", false);
    let error = kind(Path::new(&linear.path));
    assert_eq!(
        (error.kind, error.message.as_str()),
        (
            SourceErrorKind::FullBackup,
            "/dev/mapper/linear is not a thin device"
        )
    );
    let error = kind(Path::new(pool::DISK));
    assert_eq!(error.message, "/dev/ubda is no device of the device mapper");
    for path in [linear.path.as_str(), pool::DISK, "/dev/mapper/none"] {
        assert!(!Thin::may_be(Path::new(path)), "{path}");
    }
    assert_eq!(
        kind(Path::new("/dev/mapper/none")).kind,
        SourceErrorKind::GiveUp
    );
}

pub(crate) fn names_nothing_without_uuid(site: &mut Site) {
    let pool = Pool::new("nameless", "", 0, SMALL);
    let paths = pair(&pool, site, "");
    assert!(Thin::may_be(&paths[0]));
    assert_eq!(open(&paths[0], site).identity(), None);
    let mut target = open(&paths[1], site);
    check_allocated(&mut target, 16 * MIB, &not_zero(&pool::read(&paths[1])));
}

pub(crate) fn sizes_that_differ(site: &mut Site) {
    let pool = Pool::new("sizes", "sizes-pool", 0, SMALL);
    pool.create_thin(0);
    let live = pool.activate(0, 4 * MIB);
    pool::write(&live, 0, &site.random.bytes(4 << 20));
    pool.create_snap(1, 0);
    pool::write(&live, 3 * MIB, &site.random.bytes(1 << 20));
    pool.deactivate(0);
    // Not a whole number of blocks; what is behind the end keeps its mappings.
    let small = 3 * MIB + 100 * 512;
    let live = pool.activate(0, small);
    pool::write(&live, MIB, &site.random.bytes(512));
    pool.create_snap(2, 0);
    pool.deactivate(0);
    let live = pool.activate(0, 8 * MIB);
    pool::write(&live, 6 * MIB, &site.random.bytes(512));
    pool.create_snap(3, 0);
    let sizes = [4 * MIB, small, 8 * MIB];
    let paths =
        [(1, sizes[0]), (2, sizes[1]), (3, sizes[2])].map(|(id, size)| pool.activate(id, size));
    let contents = paths.each_ref().map(|path| pool::read(path));
    let mut sources = paths.each_ref().map(|path| open(path, site));
    let records = sources.each_ref().map(|source| source.identity().unwrap());
    for (base, target) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        bind(&mut sources[target], &records[base]).unwrap();
        let extents = delta(&mut sources[target], sizes[target]).unwrap();
        let told: ExtentSet = extents.iter().copied().collect();
        let missed = different(&contents[base], &contents[target]).subtract(&told);
        assert!(missed.is_empty(), "{base} to {target}: {missed:?}");
        let end = sizes[base].min(sizes[target]);
        assert!(
            extents.iter().all(|extent| extent.end().unwrap() <= end),
            "{extents:?} behind {end}"
        );
    }
    for ((source, content), size) in sources.iter_mut().zip(&contents).zip(sizes) {
        check_allocated(source, size, &not_zero(content));
    }
}
