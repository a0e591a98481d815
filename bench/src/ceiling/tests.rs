//! The probe must do the work it is measured for: right plan, every byte hashed, output of the right size.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{CHUNK_BYTES, Mode, Options, restore, run};

const CHUNK: u64 = CHUNK_BYTES as u64;

/// An image with one incompressible chunk, one compressible one, one of written zeros, and holes around them.
fn image(directory: &std::path::Path) -> std::path::PathBuf {
    let path = directory.join("image");
    let file = File::create(&path).unwrap();
    file.set_len(64 * CHUNK).unwrap();
    let mut noise = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    file.write_all_at(&noise, 3 * CHUNK).unwrap();
    file.write_all_at(&vec![7; CHUNK_BYTES], 20 * CHUNK)
        .unwrap();
    file.write_all_at(&vec![0; CHUNK_BYTES], 40 * CHUNK)
        .unwrap();
    file.sync_all().unwrap();
    path
}

fn options(mode: Mode, directory: &std::path::Path) -> Options {
    let output = directory.join("output");
    std::fs::create_dir_all(&output).unwrap();
    let output = (mode == Mode::Backup).then_some(output);
    Options {
        image: image(directory),
        output,
        mode,
        workers: 2,
    }
}

#[test]
fn backup_stores_what_is_not_zero() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let measured = run(&options(Mode::Backup, directory.path())).unwrap();
    assert_eq!(measured.data_bytes, 2 * CHUNK);
    assert!(measured.read_bytes >= 3 * CHUNK && measured.read_bytes < 64 * CHUNK);
    // The noise is stored raw; the other chunk shrinks to almost nothing; both end in pages.
    assert!(measured.stored_bytes > CHUNK && measured.stored_bytes < CHUNK + 4 * 4096);
    let files = std::fs::read_dir(directory.path().join("output"))
        .unwrap()
        .map(Result::unwrap);
    let segments = files.filter(|file| file.file_name() != "index.json");
    let on_disk: u64 = segments.map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(on_disk, measured.stored_bytes);
}

#[test]
fn read_writes_nothing() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let measured = run(&options(Mode::Read, directory.path())).unwrap();
    assert_eq!((measured.data_bytes, measured.stored_bytes), (2 * CHUNK, 0));
}

#[test]
fn restore_gives_the_image_back() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let options = options(Mode::Backup, directory.path());
    run(&options).unwrap();
    let target = directory.path().join("target");
    let stored = options.output.unwrap();
    let measured = restore::run(&stored, &target, 2).unwrap();
    assert_eq!(measured.data_bytes, 2 * CHUNK);
    assert!(std::fs::read(&target).unwrap() == std::fs::read(&options.image).unwrap());
}

#[test]
fn restore_refuses_a_flipped_byte() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let options = options(Mode::Backup, directory.path());
    run(&options).unwrap();
    let stored = options.output.unwrap();
    for file in std::fs::read_dir(&stored).unwrap().map(Result::unwrap) {
        if file.file_name() != "index.json" {
            let file = File::options().write(true).open(file.path()).unwrap();
            file.write_all_at(&[0xa5; 16], 20).unwrap();
        }
    }
    let error = restore::run(&stored, &directory.path().join("target"), 2).unwrap_err();
    assert!(
        error.to_string().starts_with("decrypt the chunk at"),
        "{error:#}"
    );
}
