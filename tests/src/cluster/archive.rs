//! Container images as archives, made without a container engine: some files and how they are started.
//!
//! Owns: their form, that of `docker save` (<https://github.com/moby/moby/blob/master/image/spec/README.md>, version 1.2), which
//! containerd imports. Must not: import them; see [`super::node::Node::import`].

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::part;
use crate::scratch::Scratch;

/// Programs that [`Image::busybox`] answers to.
const APPLETS: [&str; 18] = [
    "sh",
    "sleep",
    "cat",
    "dd",
    "cmp",
    "blockdev",
    "ls",
    "stat",
    "sync",
    "od",
    "id",
    "mount",
    "true",
    "false",
    "test",
    "touch",
    "sha256sum",
    "grep",
];

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name with a tag. It must begin with a host name, or containerd puts one before it.
    pub name: String,
    /// Files of this machine and where the image has them.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Symbolic links: where, and to what.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
}

impl Image {
    /// A program of this machine with the libraries that it is linked to, at the same paths.
    ///
    /// # Errors
    /// Where `ldd` does not understand it.
    pub fn of_program(name: &str, program: &Path, path: &str) -> Result<Self> {
        let mut files = vec![(program.to_owned(), PathBuf::from(path))];
        files.extend(
            libraries(program)?
                .into_iter()
                .map(|library| (library.clone(), library)),
        );
        Ok(Self {
            name: name.to_owned(),
            files,
            links: Vec::new(),
            entrypoint: vec![path.to_owned()],
        })
    }

    /// A shell and its tools in one program; it sleeps until it is killed, so that it serves as a pod's sandbox as well.
    ///
    /// # Errors
    /// Where the Debian package `busybox-static`, or `busybox`, is missing.
    pub fn busybox() -> Result<Self> {
        let program = part::program("busybox", "busybox-static")?;
        Ok(Self {
            links: APPLETS
                .iter()
                .map(|name| (Path::new("/bin").join(name), "/bin/busybox".into()))
                .collect(),
            entrypoint: vec!["/bin/sleep".to_owned(), "infinity".to_owned()],
            ..Self::of_program("snaphaul.dev/busybox:rig", &program, "/bin/busybox")?
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// Where a file cannot be read or the disk is full.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let scratch = Scratch::new("image")?;
        let root = scratch.join("root");
        self.lay_out(&root)?;
        let out = scratch.join("out");
        std::fs::create_dir(&out)?;
        tar(&root, &out.join("layer.tar"), ".")?;
        let digest = part::run(Command::new("sha256sum").arg(out.join("layer.tar")))?;
        let digest = digest
            .split(' ')
            .next()
            .context("sha256sum printed nothing")?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]);
        std::fs::write(out.join("config.json"), config.to_string())?;
        std::fs::write(out.join("manifest.json"), manifest.to_string())?;
        tar(&out, archive, ".")
    }

    fn lay_out(&self, root: &Path) -> Result<()> {
        for folder in ["proc", "sys", "dev", "tmp", "run", "etc"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        let place = |path: &Path| -> Result<PathBuf> {
            let place = root.join(path.strip_prefix("/").unwrap_or(path));
            std::fs::create_dir_all(place.parent().context("a file has a folder")?)?;
            Ok(place)
        };
        for (source, path) in &self.files {
            let copied = std::fs::copy(source, place(path)?);
            copied.with_context(|| format!("copy {}", source.display()))?;
        }
        for (path, target) in &self.links {
            symlink(target, place(path)?)?;
        }
        Ok(())
    }
}

/// Paths of shared libraries and of the loader, which `ldd` prints as `name => PATH (0x…)` and `PATH (0x…)`. Of a static program it
/// says that it is none of its kind, and fails.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()?;
    if String::from_utf8_lossy(&output.stderr).contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    ensure!(
        output.status.success(),
        "ldd does not understand {}",
        program.display()
    );
    let text = String::from_utf8(output.stdout)?;
    let words = text.lines().filter_map(|line| {
        let line = line.trim();
        let rest = line.split(" => ").last()?;
        rest.split(' ').next()
    });
    Ok(words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn tar(folder: &Path, archive: &Path, content: &str) -> Result<()> {
    let mut command = Command::new("tar");
    command.args([
        "--create",
        "--numeric-owner",
        "--owner=0",
        "--group=0",
        "--file",
    ]);
    part::run(
        command
            .arg(archive)
            .arg("--directory")
            .arg(folder)
            .arg(content),
    )
    .map(drop)
}

/// As image formats call this machine's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_loader_and_libraries() {
        let found = libraries(&part::program("losetup", "mount").unwrap()).unwrap();
        assert!(found.iter().all(|path| path.is_file()), "{found:?}");
        assert!(
            found
                .iter()
                .any(|path| path.to_string_lossy().contains("libc.so")),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|path| path.to_string_lossy().contains("/ld-")),
            "{found:?}"
        );
    }
}
