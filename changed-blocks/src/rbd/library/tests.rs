use super::*;

#[test]
fn a_missing_library_names_its_package() {
    let folder = tempfile::tempdir().unwrap();
    let error = Library::load_from(folder.path()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("librados.so.2"), "{text}");
    assert!(text.contains("librados2"), "{text}");
    assert!(error.errno().is_none());
}

#[test]
fn an_old_library_names_what_it_lacks() {
    // Any library that is not Ceph's stands for one that is too old.
    let folder = tempfile::tempdir().unwrap();
    let libc = std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5).map(str::to_owned))
        .find(|file| file.contains("libc.so"))
        .unwrap();
    for name in [RADOS_FILE, RBD_FILE] {
        std::os::unix::fs::symlink(&libc, folder.path().join(name)).unwrap();
    }
    let text = Library::load_from(folder.path()).unwrap_err().to_string();
    assert!(text.contains("has no rados_create2"), "{text}");
}

#[test]
fn ceph_arguments_name_user_cluster_and_files() {
    let options = ClusterOptions::from_arguments(
        "--debug-ms 1 --id backup --cluster=other -c /a/b.conf --keyring /a/key --log-file x",
    );
    let expected = ClusterOptions {
        conf: Some("/a/b.conf".into()),
        user: "client.backup".to_owned(),
        cluster: "other".to_owned(),
        keyring: Some("/a/key".into()),
        ..ClusterOptions::default()
    };
    assert_eq!(options, expected);
    assert_eq!(
        ClusterOptions::from_arguments("-n client.x").user,
        "client.x"
    );
    assert_eq!(
        ClusterOptions::from_arguments("--id"),
        ClusterOptions::default()
    );
}
