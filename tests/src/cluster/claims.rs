//! Claims of a test: made, filled and read as a user's program would.
//!
//! Owns: their objects and their content. Must not: know of backups.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use csi_proto::csi::Volume;
use serde_json::{Value, json};

use super::api::{Api, in_namespace};
use crate::csi::attached::Attached;
use crate::csi::client::{block, mount};
use crate::image::Image;
use crate::part;
use crate::test_driver::TestDriver;

const BIND_LIMIT: Duration = Duration::from_secs(60);
/// How much is compared at once, and the unit that is written.
const STEP: usize = 1 << 20;
const BLOCK: usize = 4096;
const POLL: Duration = Duration::from_millis(50);

/// A claim, of volumeMode Block unless it was asked for otherwise.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Claim {
    /// A claim that a test did not make, e.g. one that was restored.
    #[must_use]
    pub fn named(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Makes one of `size` bytes and waits until it is bound.
    ///
    /// # Errors
    /// Where it is refused or stays unbound.
    pub fn create(api: &Api, class: &str, namespace: &str, name: &str, size: u64) -> Result<Self> {
        let more = json!({"storageClassName": class});
        let claim = Self::ask(api, namespace, name, size, &more)?;
        claim.volume(api)?;
        Ok(claim)
    }

    /// Asks for one, with further fields of its spec, and does not wait.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn ask(api: &Api, namespace: &str, name: &str, size: u64, more: &Value) -> Result<Self> {
        let claim = Self::named(namespace, name);
        let mut object = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeMode": "Block",
                "resources": {"requests": {"storage": size.to_string()}},
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        api.create(&claim.list(), &object)?;
        Ok(claim)
    }

    fn list(&self) -> String {
        in_namespace("/api/v1", &self.namespace, "persistentvolumeclaims")
    }

    /// Its path in the API.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.list(), self.name)
    }

    /// The PersistentVolume of the claim, which is waited for.
    ///
    /// # Errors
    /// Where it does not come.
    pub fn volume(&self, api: &Api) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let claim = api.get(&self.path())?.context("the claim exists")?;
            if claim["status"]["phase"] == "Bound" {
                let name = claim["spec"]["volumeName"].as_str().context("a volume")?;
                let volume = api.get(&format!("/api/v1/persistentvolumes/{name}"))?;
                return volume.context("the volume of a bound claim exists");
            }
            if begin.elapsed() > BIND_LIMIT {
                bail!("{} is not bound: {claim}", self.name);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Holds its volume as a device, or as a mounted folder, as a pod of the user would.
    ///
    /// # Errors
    /// As the driver answers.
    pub fn attach(&self, api: &Api, driver: &TestDriver) -> Result<Attached> {
        let volume = self.volume(api)?;
        let csi = &volume["spec"]["csi"];
        let mode = volume["spec"]["volumeMode"].clone();
        let handle = csi["volumeHandle"].as_str().context("a handle")?;
        let attributes = csi["volumeAttributes"].as_object().into_iter().flatten();
        let context: BTreeMap<String, String> = attributes
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let volume = Volume {
            volume_id: handle.to_owned(),
            volume_context: context,
            ..Volume::default()
        };
        let capability = match mode.as_str() {
            Some("Block") => block(),
            _ => mount(csi["fsType"].as_str().unwrap_or("")),
        };
        let name = format!("user-{}-{}", self.namespace, self.name);
        Attached::new(driver, &name, &volume, &capability, BTreeMap::new())
    }

    /// Changes the content: `change` edits a copy in `copy`, which stays, and what differs is written to the volume.
    ///
    /// # Errors
    /// As the driver answers, or where writing fails.
    pub fn write(
        &self,
        api: &Api,
        driver: &TestDriver,
        copy: &Path,
        change: impl FnOnce(&mut Image) -> Result<()>,
    ) -> Result<Image> {
        let attached = self.attach(api, driver)?;
        let mut image = copy_of(attached.path(), copy)?;
        change(&mut image)?;
        write_back(&image, attached.path())?;
        attached.detach()?;
        Ok(image)
    }

    /// Fails unless the volume begins with these bytes and has at least as many.
    ///
    /// # Errors
    /// On a difference.
    pub fn assert_same(&self, api: &Api, driver: &TestDriver, image: &Image) -> Result<()> {
        let attached = self.attach(api, driver)?;
        let size = crate::image::size_of(attached.path())?;
        let differs = if size < image.size {
            bail!("{} has {size} bytes, not {}", self.name, image.size)
        } else {
            crate::image::first_difference(&image.path, attached.path(), 0, image.size)?
        };
        attached.detach()?;
        match differs {
            None => Ok(()),
            Some(at) => bail!("{} differs at byte {at}", self.name),
        }
    }
}

fn copy_of(device: &Path, copy: &Path) -> Result<Image> {
    let size = crate::image::size_of(device)?;
    let mut words = [OsString::from("if="), OsString::from("of=")];
    words[0].push(device);
    words[1].push(copy);
    let flags = ["bs=1M", "conv=sparse", "status=none"];
    part::run(Command::new("dd").args(words).args(flags))?;
    let file = File::options().write(true).open(copy)?;
    file.set_len(size)?;
    Ok(Image {
        path: copy.to_owned(),
        size,
    })
}

/// Writes the blocks that differ, so that the driver sees only those as changed.
fn write_back(image: &Image, device: &Path) -> Result<()> {
    let from = File::open(&image.path)?;
    let to = File::options().read(true).write(true).open(device)?;
    let (mut wanted, mut present) = (vec![0; STEP], vec![0; STEP]);
    let mut offset = 0;
    while offset < image.size {
        let len = usize::try_from(image.size - offset)?.min(STEP);
        from.read_exact_at(&mut wanted[..len], offset)?;
        to.read_exact_at(&mut present[..len], offset)?;
        if wanted[..len] != present[..len] {
            let pieces = wanted[..len]
                .chunks(BLOCK)
                .zip(present[..len].chunks(BLOCK));
            let mut at = offset;
            for (new, old) in pieces {
                if new != old {
                    to.write_all_at(new, at)?;
                }
                at += u64::try_from(new.len())?;
            }
        }
        offset += u64::try_from(len)?;
    }
    Ok(to.sync_all()?)
}
