use super::*;

use std::cell::Cell;
use std::sync::Arc;

use crate::device::AlignedBuffer;
use crate::repository::store::{contract, list_all};

/// Every way to write, on every file system at hand.
fn run_contract(parent: &Path, direct: bool, unnamed: bool) {
    let folder = tempfile::tempdir_in(parent).unwrap();
    let made = Cell::new(0);
    contract::run(&|| {
        made.set(made.get() + 1);
        let path = folder.path().join(made.get().to_string());
        Arc::new(DirectoryStore::with_writer(&path, true, Writer::with(direct, unnamed)).unwrap())
    });
}

#[test]
fn the_contract_holds_with_direct_unnamed_files() {
    run_contract(&std::env::temp_dir(), true, true);
}

#[test]
fn the_contract_holds_through_the_page_cache() {
    run_contract(&std::env::temp_dir(), false, true);
}

#[test]
fn the_contract_holds_with_temporary_names() {
    run_contract(&std::env::temp_dir(), true, false);
}

#[test]
fn the_contract_holds_in_memory() {
    run_contract(Path::new("/dev/shm"), true, true);
    run_contract(Path::new("/dev/shm"), false, false);
}

fn store() -> (tempfile::TempDir, DirectoryStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(folder.path(), false).unwrap();
    (folder, store)
}

#[test]
fn a_name_never_gets_other_bytes() {
    let (_folder, store) = store();
    for len in [5, 100_000] {
        let name = format!("seg/{len}");
        store.put(&name, Bytes::from(vec![1; len])).unwrap();
        for other in [vec![2; len], vec![1; len + 1], vec![1; len - 1]] {
            let error = store.put(&name, Bytes::from(other)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.object_name().unwrap().ends_with(&name));
        }
        assert_eq!(store.get(&name).unwrap(), vec![1; len]);
    }
}

#[test]
fn an_object_sent_once_does_not_replace_another() {
    let (_folder, store) = store();
    store
        .put_once("open/a", Bytes::from_static(b"first"))
        .unwrap();
    assert!(
        store
            .put_once("open/a", Bytes::from_static(b"first"))
            .is_err()
    );
    assert_eq!(store.get("open/a").unwrap(), "first");
}

#[test]
fn rewriting_the_same_bytes_renews_the_time() {
    let (folder, store) = store();
    store.put("beat/a", Bytes::from_static(b"x")).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join("beat/a"))
        .unwrap();
    file.set_modified(long_ago).unwrap();
    assert_eq!(
        store.head("beat/a").unwrap().unwrap().modified,
        Some(long_ago)
    );
    store.put("beat/a", Bytes::from_static(b"x")).unwrap();
    assert!(store.head("beat/a").unwrap().unwrap().modified.unwrap() > long_ago);
}

#[test]
fn what_a_killed_process_left_goes_at_the_next_start_and_what_is_in_use_stays() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join(".incoming")).unwrap();
    fs::write(root.join(".incoming/dead"), "half an obj").unwrap();
    let alive = fs::File::create(root.join(".incoming/alive")).unwrap();
    alive.lock().unwrap();
    let store = DirectoryStore::open(root, false).unwrap();
    assert!(!root.join(".incoming/dead").exists());
    assert!(root.join(".incoming/alive").exists());
    assert!(list_all(&store, "").unwrap().is_empty());
}

#[test]
fn a_temporary_file_taken_away_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let writer = Writer::with(true, false);
    let incoming = writer.write(root, root, &Bytes::from_static(b"x")).unwrap();
    assert!(!incoming.is_gone());
    let name = fs::read_dir(root.join(".incoming"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::remove_file(name).unwrap();
    assert!(incoming.is_gone());
    assert_eq!(incoming.link(&root.join("x")), Err(Errno::ENOENT));
}

#[test]
fn nothing_is_left_of_an_object_that_was_not_linked() {
    for unnamed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::with(true, unnamed);
        drop(
            writer
                .write(folder.path(), folder.path(), &Bytes::from(vec![7; 100_000]))
                .unwrap(),
        );
        let files: Vec<_> = walk(folder.path());
        assert!(files.is_empty(), "{files:?}");
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn folders_go_with_their_last_object_while_others_write_into_them() {
    let (folder, store) = store();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..200 {
                    let name = format!("snap/volume/{writer}-{round}");
                    store.put(&name, Bytes::from_static(b"x")).unwrap();
                    store.delete(&name).unwrap();
                }
            });
        }
    });
    store.sync().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn reads_after_the_end_moved_are_short_and_large_reads_are_exact() {
    let (folder, store) = store();
    let mut buffer = AlignedBuffer::new(1_000_000);
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = u8::try_from(index % 251).unwrap();
    }
    let body = buffer.into_bytes(0..999_999);
    store.put("seg/x", body.clone()).unwrap();
    assert_eq!(
        store.get_range("seg/x", 4097..900_001).unwrap(),
        body.slice(4097..900_001)
    );
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join("seg/x"))
        .unwrap();
    file.set_len(100_001).unwrap();
    assert_eq!(store.get("seg/x").unwrap(), body.slice(..100_001));
}

#[test]
fn a_directory_where_a_file_is_expected_is_no_object() {
    let (_folder, store) = store();
    store.put("seg/a/b", Bytes::from_static(b"x")).unwrap();
    assert_eq!(store.get("seg/a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.head("seg/a").unwrap(), None);
    assert_eq!(
        store.get("seg/a/b/c").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(store.head("seg/a/b/c").unwrap(), None);
}

#[test]
fn objects_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, store) = store();
    store.put("seg/a", Bytes::from_static(b"x")).unwrap();
    for path in ["seg", "seg/a"] {
        let mode = fs::metadata(folder.path().join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o007, 0, "{path} {mode:o}");
    }
}

#[test]
fn the_profile_of_a_local_directory_binds_no_host() {
    let (_folder, store) = store();
    let profile = store.explore("probe/x").unwrap();
    assert_eq!(
        (profile.kind.as_str(), profile.single_host),
        ("directory", None)
    );
}
