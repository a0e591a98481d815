//! Pools of thin devices, made by hand with dmsetup on parts of the machine's disk.
//!
//! Owns: making and removing them. Must not: check anything but that each step worked.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bytes::SECTOR;

/// The machine's disk, and how much of it is for LVM.
pub(crate) const DISK: &str = "/dev/ubda";
pub(crate) const LVM_SECTORS: u64 = (1 << 30) / SECTOR as u64;

/// Runs a program and returns what it wrote.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} {complaint}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// There is no udev in the machine.
fn dmsetup(arguments: &[&str]) -> String {
    let all = [&["--noudevrules", "--noudevsync"], arguments].concat();
    run("dmsetup", &all)
}

pub(crate) fn create(name: &str, uuid: &str, table: &str) -> PathBuf {
    let uuid = if uuid.is_empty() {
        vec![]
    } else {
        vec!["--uuid", uuid]
    };
    dmsetup(&[&["create", name, "--table", table], &uuid[..]].concat());
    run("dmsetup", &["mknodes"]);
    Path::new("/dev/mapper").join(name)
}

/// Removes a device; one that is not there is as good.
pub(crate) fn remove(name: &str) {
    let removed = Command::new("dmsetup")
        .args(["--noudevrules", "--noudevsync", "remove", "--retry", name])
        .output();
    if let Ok(output) = removed {
        eprintln!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// How a pool is made.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) block_sectors: u64,
    pub(crate) metadata_sectors: u64,
    pub(crate) data_sectors: u64,
}

/// Blocks of 64 KiB, the smallest there are.
pub(crate) const SMALL: Shape = Shape {
    block_sectors: 128,
    metadata_sectors: 16 << 10,
    data_sectors: 1 << 20,
};

/// A pool, its devices, and the two parts of the disk under it.
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) block_bytes: u64,
    active: Cell<Vec<String>>,
}

impl Pool {
    /// A new pool. `name` names its parts too; two pools at once take different `slot`s of the disk.
    pub(crate) fn new(name: &str, uuid: &str, slot: u64, shape: Shape) -> Self {
        let Shape {
            block_sectors,
            metadata_sectors,
            data_sectors,
        } = shape;
        let start = LVM_SECTORS + slot * (2 << 20);
        assert!(metadata_sectors + data_sectors <= 2 << 20);
        let metadata = create(
            &format!("{name}-tmeta"),
            "",
            &format!("0 {metadata_sectors} linear {DISK} {start}"),
        );
        let after = start + metadata_sectors;
        let data = create(
            &format!("{name}-tdata"),
            "",
            &format!("0 {data_sectors} linear {DISK} {after}"),
        );
        // A superblock of zeros is one that the kernel makes anew.
        let file = File::options().write(true).open(&metadata).unwrap();
        file.write_all_at(&[0; 4096], 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let (metadata, data) = (metadata.display(), data.display());
        let table = format!(
            "0 {data_sectors} thin-pool {metadata} {data} {block_sectors} 0 1 no_discard_passdown"
        );
        create(name, uuid, &table);
        Self {
            name: name.to_owned(),
            block_bytes: block_sectors * SECTOR as u64,
            active: Cell::default(),
        }
    }

    pub(crate) fn message(&self, message: &str) {
        run("dmsetup", &["message", &self.name, "0", message]);
    }

    pub(crate) fn status(&self) -> String {
        run("dmsetup", &["status", &self.name])
    }

    /// The block of the metadata snapshot that is held; `-` for none.
    pub(crate) fn held(&self) -> String {
        self.status()
            .split_ascii_whitespace()
            .nth(6)
            .expect("a status of seven words")
            .to_owned()
    }

    pub(crate) fn create_thin(&self, id: u64) {
        self.message(&format!("create_thin {id}"));
    }

    /// A snapshot of `origin`, which is suspended meanwhile where it is active, as the kernel's documentation asks.
    pub(crate) fn create_snap(&self, id: u64, origin: u64) {
        let name = self.device_name(origin);
        let active = self.is_active(&name);
        if active {
            dmsetup(&["suspend", &name]);
        }
        self.message(&format!("create_snap {id} {origin}"));
        if active {
            dmsetup(&["resume", &name]);
        }
    }

    pub(crate) fn delete(&self, id: u64) {
        self.deactivate(id);
        self.message(&format!("delete {id}"));
    }

    pub(crate) fn activate(&self, id: u64, bytes: u64) -> PathBuf {
        self.activate_with(id, bytes, "")
    }

    /// Activates with an external origin, a path.
    pub(crate) fn activate_with(&self, id: u64, bytes: u64, origin: &str) -> PathBuf {
        let (name, sectors) = (self.device_name(id), bytes / SECTOR as u64);
        let path = create(
            &name,
            "",
            &format!("0 {sectors} thin /dev/mapper/{} {id} {origin}", self.name),
        );
        let mut active = self.active.take();
        active.push(name);
        self.active.set(active);
        path
    }

    pub(crate) fn deactivate(&self, id: u64) {
        let name = self.device_name(id);
        let mut active = self.active.take();
        if active.contains(&name) {
            dmsetup(&["remove", &name]);
            active.retain(|other| *other != name);
        }
        self.active.set(active);
    }

    fn is_active(&self, name: &String) -> bool {
        let active = self.active.take();
        let is_active = active.contains(name);
        self.active.set(active);
        is_active
    }

    fn device_name(&self, id: u64) -> String {
        format!("{}-{id}", self.name)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for name in self.active.take() {
            remove(&name);
        }
        for part in ["", "-tmeta", "-tdata"] {
            remove(&format!("{}{part}", self.name));
        }
    }
}

/// Writes to a device, down to the pool.
pub(crate) fn write(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options()
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn discard(path: &Path, offset: u64, length: u64) {
    let [offset, length] = [offset, length].map(|number| number.to_string());
    run(
        "blkdiscard",
        &[
            "--offset",
            &offset,
            "--length",
            &length,
            &path.display().to_string(),
        ],
    );
}
