//! Which socket a text names.
//!
//! Owns: the forms in which people write a socket, and the one path by which locks, journals and notes know it. Must not: connect.
//!
//! ```text
//!   unix:///PATH, unix:PATH, PATH, ./PATH, a link to it ──► one canonical path
//!   @NAME                                               ──► refused: it is no path
//! ```

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// What gRPC calls the name of a socket that is no file.
const ABSTRACT: &str = "unix-abstract:";

/// The path to connect to, as a person means it; it does not depend on the working directory.
///
/// # Errors
/// `InvalidRequest` for a socket of the abstract namespace, and for what is not on this machine.
pub fn given(text: &Path) -> Result<PathBuf> {
    // A file may have any name.
    if text.exists() {
        return Ok(absolute(text));
    }
    let Some(whole) = text.to_str() else {
        return Ok(absolute(text));
    };
    let path = ["unix://", "unix:"]
        .iter()
        .find_map(|scheme| whole.strip_prefix(scheme))
        .unwrap_or(whole);
    if path.starts_with('@') || path.starts_with(ABSTRACT) {
        return Err(refused("connect to a socket that has no path", whole).hint(
            "a name with @ in front is one of the abstract namespace, which no driver is asked by: let the driver listen on a file, \
             e.g. /var/lib/kubelet/plugins/NAME/csi.sock, and give that; for a file of this name write ./@NAME",
        ));
    }
    if path.contains("://") {
        return Err(refused("connect to a driver over the network", whole).hint(
            "give the path of the driver's socket on this node, e.g. /var/lib/kubelet/plugins/NAME/csi.sock",
        ));
    }
    if path.is_empty() {
        return Err(
            refused("connect to a socket without a name", whole).hint("write --csi-socket PATH")
        );
    }
    Ok(absolute(Path::new(path)))
}

/// The one path of a socket, however it was written: without links, `.` and `..`. It is used as a name only, never to connect.
///
/// A socket that is not there now, because its driver is down, is known by its folder. Where the path does not lead to the same
/// socket as the text, as with `/proc/PID/root`, the text is the name.
#[must_use]
pub fn canonical(path: &Path) -> PathBuf {
    let path = absolute(path);
    if let Ok(resolved) = path.canonicalize() {
        return if is_same(&path, &resolved) {
            resolved
        } else {
            path
        };
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return path;
    };
    match folder.canonicalize() {
        Ok(resolved) if is_same(folder, &resolved) => resolved.join(name),
        _ => path,
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let inode = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => inode(one) == inode(other),
        _ => false,
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn refused(message: &str, text: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, message).object(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_spelling_of_a_socket_has_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let socket = folder.join("plugin/csi.sock");
        fs::create_dir(folder.join("plugin")).unwrap();
        symlink(folder.join("plugin"), folder.join("folder-link")).unwrap();
        symlink(&socket, folder.join("link.sock")).unwrap();
        for exists in [false, true] {
            let _listener = exists.then(|| UnixListener::bind(&socket).unwrap());
            let mut spellings = vec![
                format!("{}/plugin/csi.sock", folder.display()),
                format!("{}/plugin/../plugin/./csi.sock", folder.display()),
                format!("{}/folder-link/csi.sock", folder.display()),
                format!("unix://{}/plugin/csi.sock", folder.display()),
                format!("unix:{}/folder-link/csi.sock", folder.display()),
            ];
            if exists {
                // A link to nothing leads nowhere.
                spellings.push(format!("{}/link.sock", folder.display()));
            }
            for spelling in spellings {
                let path = given(Path::new(&spelling)).unwrap();
                assert_eq!(canonical(&path), socket, "{spelling}");
            }
        }
        let working = std::env::current_dir().unwrap();
        let relative = given(Path::new("unix:some.sock")).unwrap();
        assert_eq!(relative, working.join("some.sock"));
        assert_eq!(canonical(Path::new("/s")), Path::new("/s"));
    }

    #[test]
    fn a_link_that_the_kernel_follows_by_itself_is_not_resolved_to_something_else() {
        let path = Path::new("/proc/self/fd/0/none/csi.sock");
        assert_eq!(canonical(path), path);
    }

    #[test]
    fn what_is_no_path_is_refused_with_what_to_do() {
        for (text, hint) in [
            ("@csi", "abstract namespace"),
            ("unix:@csi", "abstract namespace"),
            ("unix-abstract:csi", "abstract namespace"),
            ("unix://@/var/csi.sock", "abstract namespace"),
            ("tcp://127.0.0.1:10000", "path of the driver's socket"),
            ("unix://", "--csi-socket PATH"),
        ] {
            let error = given(Path::new(text)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(error.hint_text().unwrap().contains(hint), "{text}: {error}");
            assert_eq!(error.object_name(), Some(text));
        }
        // An @ elsewhere is a letter like any other.
        let path = Path::new("/run/a@b/csi@reg.sock");
        assert_eq!(given(path).unwrap(), path);
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("@csi");
        fs::write(&odd, "").unwrap();
        assert_eq!(given(&odd).unwrap(), odd);
    }
}
