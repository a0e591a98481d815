use super::*;
use crate::device::loop_device::LoopDevice;

#[test]
fn mount_points_are_found_by_device_number() {
    let text = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                36 22 7:3 / /mnt/my\\040disk rw shared:1 master:2 - xfs /dev/loop3 rw\n\
                broken line\n";
    let find = |major, minor| mounted_at(FileKey::Device { major, minor }, text);
    assert_eq!(find(254, 0).as_deref(), Some("/"));
    assert_eq!(find(7, 3).as_deref(), Some("/mnt/my disk"));
    assert_eq!(find(7, 30), None);
    assert_eq!(
        mounted_at(
            FileKey::File {
                major: 254,
                minor: 0,
                inode: 2
            },
            text
        ),
        None
    );
}

#[test]
fn write_access_is_read_from_the_flags() {
    for (flags, writes) in [
        ("0100000", false),
        ("0100001", true),
        ("02100002", true),
        ("x", false),
    ] {
        assert_eq!(
            has_write_flag(&format!("pos:\t0\nflags:\t{flags}\n")),
            writes,
            "{flags}"
        );
    }
    assert!(!has_write_flag("pos: 0"));
}

#[test]
fn a_file_behind_a_loop_device_is_held() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let key = file_key(file.path()).unwrap();
    assert_eq!(user(key), None);
    let device = LoopDevice::attach(file.path(), 512).unwrap();
    assert!(user(key).unwrap().starts_with("held by loop"));
    assert_eq!(user(file_key(device.path()).unwrap()), None);
}

#[test]
fn exclusive_use_excludes_itself() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let device = LoopDevice::attach(file.path(), 512).unwrap();
    let mut options = OpenOptions::new();
    let held = open_exclusive(device.path(), options.read(true)).unwrap();
    let error = open_exclusive(device.path(), &options).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    drop(held);
    open_exclusive(device.path(), &options).unwrap();
}
