//! The agent's seccomp profile under a real container runtime: what it allows works, what the runtimes' own profiles take away is
//! done without.
//!
//! The container has this machine's programs, no capability, and a folder to write in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::scratch::Scratch;
use tests::{part, snaphaul};

/// Places of the machine that a program needs; the work folder comes besides.
const READ_ONLY: [&str; 4] = ["/usr", "/lib", "/lib64", "/bin"];

/// A container of this machine's programs under a profile.
struct Container {
    folder: Scratch,
}

impl Container {
    fn new() -> Result<Self> {
        part::root()?;
        let folder = Scratch::new("seccomp")?;
        for name in ["bundle", "bundle/rootfs", "state", "work", "program"] {
            std::fs::create_dir(folder.join(name))?;
        }
        // By another process: what this one has open for writing, a child that another test starts holds for a moment, and nobody
        // may run it then.
        part::run(
            Command::new("cp")
                .arg(snaphaul::binary()?)
                .arg(folder.join("program/snaphaul")),
        )?;
        Ok(Self { folder })
    }

    fn profile(&self) -> Result<Value> {
        let text = part::run(Command::new(self.folder.join("program/snaphaul")).arg("seccomp"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs a script in the work folder and gives what it printed, to both streams.
    fn run(&self, profile: &Value, script: &str) -> Result<String> {
        let bundle = self.folder.join("bundle");
        let config = self.config(profile, script)?;
        std::fs::write(bundle.join("config.json"), config.to_string())?;
        // Control groups are named by it: no two containers may have one name, nor one the name of another that just ended.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("snaphaul-seccomp-{}-{number}", std::process::id());
        let mut runtime = Command::new(part::program("runc", "runc")?);
        runtime.arg("--root").arg(self.folder.join("state"));
        runtime.arg("run").arg("--bundle").arg(&bundle).arg(&name);
        let output = runtime.output().context("start runc")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if !output.status.success() {
            bail!("the container ended with {}\n{text}", output.status);
        }
        Ok(text)
    }

    /// As the kubelet would ask for: a user without capabilities that cannot gain any.
    fn config(&self, profile: &Value, script: &str) -> Result<Value> {
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
            bind(&self.folder.join("work"), "/work", "rw"),
            bind(&self.folder.join("program"), "/program", "ro"),
        ];
        let there = READ_ONLY.iter().filter(|path| Path::new(path).is_dir());
        mounts.extend(there.map(|path| bind(&PathBuf::from(path), path, "ro")));
        let none: [&str; 0] = [];
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/usr/bin/env", "bash", "-euc", script],
                "env": ["PATH=/program:/usr/bin:/bin", "HOME=/nonexistent"],
                "cwd": "/work",
                "noNewPrivileges": true,
                "capabilities": {"bounding": none, "effective": none, "permitted": none},
            },
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}],
                "seccomp": profile,
            },
        }))
    }
}

fn bind(source: &Path, destination: &str, mode: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", mode]})
}

/// The profile without io_uring, as containerd's has been since 2.0.
fn without_rings(mut profile: Value) -> Result<Value> {
    let names = profile.pointer_mut("/syscalls/0/names");
    let names = names
        .and_then(Value::as_array_mut)
        .context("a list of calls")?;
    let before = names.len();
    names.retain(|name| {
        !name
            .as_str()
            .is_some_and(|name| name.starts_with("io_uring_"))
    });
    ensure!(before - names.len() == 3, "the profile allows other rings");
    Ok(profile)
}

/// A backup and a restore that is compared, with this engine.
fn round_trip(engine: &str) -> String {
    format!(
        "rm -rf * && head -c 20000000 /dev/urandom >disk && head -c 32 /dev/urandom >key
         where='--repo repository --key-file key'
         snaphaul init $where && snaphaul backup disk $where --engine {engine} &&
         snaphaul restore disk@latest restored $where --engine {engine} && cmp disk restored && echo identical"
    )
}

#[test]
fn the_profile_allows_what_the_program_does_and_its_rings() {
    let container = Container::new().unwrap();
    let profile = container.profile().unwrap();
    for engine in ["io_uring", "threads"] {
        let text = container.run(&profile, &round_trip(engine)).unwrap();
        assert!(text.contains("identical"), "{engine}: {text}");
    }
}

#[test]
fn without_rings_threads_do_the_same() {
    let container = Container::new().unwrap();
    let profile = without_rings(container.profile().unwrap()).unwrap();
    let error = container
        .run(&profile, &round_trip("io_uring"))
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("allow io_uring (seccomp profile"), "{text}");
    let text = container.run(&profile, &round_trip("auto")).unwrap();
    assert!(text.contains("identical"), "{text}");
    assert!(text.contains("io_uring cannot be used"), "{text}");
}

#[test]
fn nothing_leaves_the_container() {
    let container = Container::new().unwrap();
    let profile = container.profile().unwrap();
    for script in [
        "unshare --user true",
        "mount -t tmpfs none /tmp",
        "unshare --pid --fork true",
    ] {
        let text = format!("{:#}", container.run(&profile, script).unwrap_err());
        assert!(
            text.contains("ermitted") || text.contains("denied"),
            "{script}: {text}"
        );
    }
}
