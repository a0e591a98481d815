//! `snaphaul seccomp`: lays down what the agent's container runs under.
//!
//! Owns: where the profile goes. Must not: decide what it allows (`kube::seccomp`).

use std::fs;
use std::path::Path;

use serde_json::json;

use super::args::SeccompArgs;
use super::run::{Outcome, Text};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::seccomp;

pub(super) fn run(args: &SeccompArgs) -> Result<Outcome> {
    let Some(folder) = &args.install else {
        let profile = seccomp::profile();
        let text = format!("{profile:#}\n");
        return Outcome::new(&json!({ "profile": profile }), Text::Answer(text));
    };
    let path = install(folder)?;
    Outcome::new(
        &json!({ "path": path }),
        Text::Summary(format!("wrote {path}\n")),
    )
}

/// Replaces the file at once: a kubelet that starts a container meanwhile reads the old or the new one.
fn install(folder: &Path) -> Result<String> {
    let path = folder.join(seccomp::FILE_NAME);
    let partial = folder.join(format!("{}.{}.tmp", seccomp::FILE_NAME, std::process::id()));
    let text = format!("{:#}\n", seccomp::profile());
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path));
    written.map_err(|error| {
        // The part is of no use to anybody; that it stays behind is no second failure.
        let _ = fs::remove_file(&partial);
        Error::new(ErrorKind::Io, "write the seccomp profile")
            .object(path.display())
            .hint("give a folder that exists and can be written")
            .source(error)
    })?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_what_it_prints_over_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(seccomp::FILE_NAME);
        fs::write(&path, "an older one").unwrap();
        assert_eq!(install(folder.path()).unwrap(), path.display().to_string());
        let written: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(written, seccomp::profile());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = install(Path::new("/nonexistent/seccomp")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(format!("{error}").contains("seccomp profile"), "{error}");
    }
}
