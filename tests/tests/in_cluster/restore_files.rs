//! Restores of claims with file systems.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::claims::Claim;
use tests::cluster::storage::CLASS;
use tests::image::MIB;

use crate::bed::Bed;
use crate::restores::{self, completed, refused, restore};

/// A storage class that says which file system its volumes get.
const EXT4: &str = "test-ext4";
/// No other class names one, so that it must come from the record.
const FS_TYPE: &str = "ext4";
const FILES: u64 = 40;

/// Files come back in a new claim of a class that says nothing of file systems, and in place of the old claim; a volume that holds
/// files is not written over.
pub(crate) fn file_system(bed: &mut Bed) -> Result<()> {
    let parameters = json!({"csi.storage.k8s.io/fstype": FS_TYPE});
    let more = json!({"parameters": parameters, "allowVolumeExpansion": true});
    restores::class(bed, EXT4, &more)?;
    let mode = json!({"volumeMode": "Filesystem", "storageClassName": EXT4});
    let claim = Claim::ask(&bed.api, &bed.namespace, "files", 48 * MIB, &mode)?;
    let written = write(bed, &claim)?;
    let backup = restores::back_up(bed, "first", "files")?;
    let recorded = backup["status"]["order"]["recorded"].as_str();
    let recorded: Value = serde_json::from_str(recorded.context("a record")?)?;
    ensure!(recorded["fsType"] == FS_TYPE, "{recorded}");
    bed.count()?;
    let mut other = restores::of_backup("first", "NewClaim", "copy");
    other["target"]["storageClassName"] = json!(CLASS);
    restore(bed, "copy", &other)?;
    restore(
        bed,
        "over",
        &restores::of_backup("first", "InPlace", "files"),
    )?;
    refused(bed, "over", "TargetRefused", "use mode Replace")?;
    completed(bed, "copy")?;
    let copy = restores::claim(bed, "copy");
    let volume = copy.volume(&bed.api)?;
    ensure!(
        volume["spec"]["csi"]["fsType"] == FS_TYPE
            && volume["spec"]["volumeMode"] == "Filesystem"
            && volume["spec"]["storageClassName"] == CLASS,
        "{volume}"
    );
    assert_files(bed, &copy, &written)?;
    // What was written since is gone afterwards.
    write(bed, &claim)?;
    restore(
        bed,
        "back",
        &restores::of_backup("first", "Replace", "files"),
    )?;
    completed(bed, "back")?;
    assert_files(bed, &claim, &written)?;
    restores::remove(bed, &["copy", "files"])
}

type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// Adds files, and gives all that are there then.
fn write(bed: &mut Bed, claim: &Claim) -> Result<Files> {
    let held = claim.attach(&bed.api, &bed.storage.driver)?;
    for number in 0..FILES {
        let size = usize::try_from(bed.random.below(300_000))?;
        let mut bytes = vec![0; size];
        bed.random.fill(&mut bytes);
        let folder = held.path().join(format!("folder-{}", number % 5));
        std::fs::create_dir_all(&folder)?;
        let name = format!("file-{}", bed.random.below(1 << 40));
        std::fs::write(folder.join(name), bytes)?;
    }
    let files = restores::files(held.path())?;
    held.detach()?;
    Ok(files)
}

fn assert_files(bed: &Bed, claim: &Claim, wanted: &Files) -> Result<()> {
    let held = claim.attach(&bed.api, &bed.storage.driver)?;
    let found = restores::files(held.path())?;
    held.detach()?;
    let names: Vec<&String> = wanted
        .keys()
        .filter(|name| found.get(*name) != wanted.get(*name))
        .collect();
    ensure!(names.is_empty(), "{} differs in {names:?}", claim.name);
    ensure!(found.len() == wanted.len(), "{} has more files", claim.name);
    Ok(())
}
