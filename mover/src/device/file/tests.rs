use std::os::unix::fs::FileExt;

use super::*;

fn open(size: u64) -> (tempfile::NamedTempFile, DeviceFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    let buffered = file.reopen().unwrap();
    let device = DeviceFile::open(buffered, file.path(), Direction::Write).unwrap();
    (file, device)
}

#[test]
fn requests_split_at_the_last_whole_unit() {
    let (_file, device) = open(1 << 20);
    let unit = u64::from(device.unit());
    let len = usize::try_from(unit).unwrap();
    assert!(unit >= 512 && device.fallback().is_none());
    assert_eq!(device.split(0, 4 * len), (4 * len, 0));
    assert_eq!(device.split(unit, len + 1), (len, 1));
    assert_eq!(device.split(0, 1), (0, 1));
    assert_eq!(device.split(1, 4 * len), (0, 4 * len));
    assert_eq!(device.split(0, 0), (0, 0));
}

#[test]
fn transfers_in_this_thread_take_any_place_and_length() {
    let (file, device) = open((1 << 20) + 13);
    for (offset, len) in [(0, 8192), (4096, 5000), (1 << 20, 13), (777, 9000), (5, 1)] {
        let mut buffer = AlignedBuffer::new(len);
        buffer[..len].fill(0x5A);
        device.write_now(offset, &buffer, len).unwrap();
        let mut seen = vec![0; len];
        file.as_file().read_exact_at(&mut seen, offset).unwrap();
        assert!(seen.iter().all(|byte| *byte == 0x5A), "at {offset}");
        let (read, range) = device.read_now(offset, len).unwrap();
        assert_eq!(read[range], seen[..]);
    }
    assert_eq!(file.as_file().metadata().unwrap().len(), (1 << 20) + 13);
}

#[test]
fn errors_name_the_device_and_the_offset() {
    let (file, device) = open(4096);
    let error = device.read_now(8192, 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        error.to_string(),
        format!("read 4096 bytes at offset 8192 ({})", file.path().display())
    );
    assert!(error.hint_text().unwrap().contains("became smaller"));
    assert!(std::error::Error::source(&error).is_some());
    let full = io::Error::from_raw_os_error(libc::ENOSPC);
    let error = transfer_error(Direction::Write, Path::new("/x"), 5, 6, full);
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(error.to_string(), "write 6 bytes at offset 5 (/x)");
}
