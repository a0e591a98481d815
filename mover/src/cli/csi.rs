//! `snaphaul csi`, and volumes of CSI drivers as SOURCE and TARGET.
//!
//! Owns: flags to options, and what of a run is said. Must not: know the order of calls (`attach::csi` does).

mod backup;
#[cfg(feature = "kubernetes")]
mod cluster_secrets;
mod release;
mod restore;

use std::collections::BTreeMap;
use std::path::Path;

use changed_blocks::csi::parse_created;

use super::args::{
    CsiArgs, CsiCommand, CsiDriverArgs, CsiInfoArgs, CsiSnapshotArgs, CsiVolumeArgs,
};
use super::config::invalid;
use super::output::table::Table;
use super::run::{Outcome, Run, Text};
use crate::attach::csi::info::DriverReport;
use crate::attach::csi::profile::{BasePolicy, CloneCost, Profiles, ProfilesError};
use crate::attach::csi::secrets::Secrets;
use crate::attach::csi::state::Begun;
use crate::attach::csi::sweep::{Purpose, Stay};
use crate::attach::csi::{CsiOptions, Deadlines, Driver, PREFIX, Recorded, SnapshotView, sweep};
use crate::device::source::SourceDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::progress::StopFlag;
use crate::repository::access::Repository;
use crate::repository::session::resolve::resolve;

pub(super) use crate::attach::csi::HeldVolumes;
use backup::volume_and_snapshot;
pub(super) use backup::{run as backup, volume_name};
pub(super) use restore::run as restore;

/// What parameters of classes begin with that are not for the driver.
const FOR_SIDECARS: &str = "csi.storage.k8s.io/";

/// Whether a SOURCE or TARGET is meant as a volume of a driver.
pub(super) fn is_meant(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(PREFIX))
}

pub(super) fn run(run: &Run, args: &CsiArgs) -> Result<Outcome> {
    match &args.command {
        CsiCommand::Info(args) => info(args),
        CsiCommand::Release(args) => release::run(run, args),
    }
}

/// A snapshot that is only asked about, and what its driver calls it.
pub(super) fn view<'a>(
    source: &'a Path,
    driver: &CsiDriverArgs,
    held: &mut HeldVolumes,
    stop: &StopFlag,
) -> Result<(Box<dyn SourceDevice>, &'a str)> {
    let (volume, snapshot) = volume_and_snapshot(source)?;
    let snapshot = snapshot.ok_or_else(|| {
        invalid("say what a volume holds that is in use")
            .object(source.display())
            .hint("name a snapshot of it: csi:VOLUME_ID@SNAPSHOT_ID")
    })?;
    let options = options(driver, None, None)?;
    let view = SnapshotView::open(&options, (volume, snapshot), held, stop)?;
    Ok((Box::new(view), snapshot))
}

/// The options that the flags stand for.
fn options(
    driver: &CsiDriverArgs,
    volume: Option<&CsiVolumeArgs>,
    snapshot: Option<&CsiSnapshotArgs>,
) -> Result<CsiOptions> {
    let Some(socket) = &driver.csi_socket else {
        return Err(invalid("speak to a driver without its socket")
            .hint("give it with --csi-socket, e.g. /var/lib/kubelet/plugins/NAME/csi.sock"));
    };
    let mut options = CsiOptions::new(socket);
    options.node_socket.clone_from(&driver.csi_node_socket);
    if let Some(folder) = &driver.csi_secrets {
        options.secrets = secrets(folder)?;
    }
    for what in &driver.csi_profile {
        options.profiles = profiles(options.profiles, what)?;
    }
    if let Some(state) = &driver.csi_state {
        // A journal tells paths, which must be found from another folder, too.
        options.state = std::path::absolute(state).unwrap_or(state.clone());
    }
    let usual = Deadlines::default();
    options.deadlines = Deadlines {
        call: driver.csi_timeout,
        snapshot: driver.csi_deadline.unwrap_or(usual.snapshot),
        expose: driver.csi_deadline.unwrap_or(usual.expose),
        ..usual
    };
    if let Some(volume) = volume {
        options.parameters = parameters("--csi-parameter", &volume.csi_parameters)?;
        if let Some(root) = &volume.kubelet_root {
            options.kubelet_root = std::path::absolute(root).unwrap_or(root.clone());
        }
    }
    if let Some(snapshot) = snapshot {
        let texts = &snapshot.csi_snapshot_parameters;
        options.snapshot_parameters = parameters("--csi-snapshot-parameter", texts)?;
    }
    Ok(options)
}

/// Secrets from a folder, or from a cluster.
fn secrets(from: &Path) -> Result<Secrets> {
    let text = from.to_str().unwrap_or_default();
    if text.starts_with("k8s:") || text.starts_with("k8s-class:") {
        return cluster_secrets(text);
    }
    Secrets::read(from)
}

#[cfg(feature = "kubernetes")]
use cluster_secrets::read as cluster_secrets;

#[cfg(not(feature = "kubernetes"))]
fn cluster_secrets(text: &str) -> Result<Secrets> {
    Err(invalid("read secrets from a cluster: this build has no Kubernetes").object(text))
}

/// What a person knows better of drivers: a field, or a file of fields. A file with `=` in its name is given as a path.
fn profiles(known: Profiles, what: &Path) -> Result<Profiles> {
    let refused = |error: ProfilesError| {
        invalid("use the profiles of drivers")
            .object(what.display())
            .source(error)
    };
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let pair = what.to_str().and_then(|text| text.split_once('='));
    if let Some((name, value)) = pair.filter(|(name, _)| is_name(name)) {
        return known.with(name, value).map_err(|error| {
            refused(error).hint("write NAME=VALUE as `snaphaul csi info --json` prints them")
        });
    }
    let text = std::fs::read_to_string(what).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::AccessDenied,
            _ => ErrorKind::Io,
        };
        Error::new(kind, "read the profiles of drivers")
            .object(what.display())
            .source(error)
    })?;
    let more = Profiles::parse(&text).map_err(|error| {
        refused(error)
            .hint("write one entry for each driver, e.g. rbd.csi.ceph.com: {baseSnapshot: drop}")
    })?;
    Ok(known.and(more))
}

/// Parses `KEY=VALUE` texts that a driver understands. What is for the sidecars of Kubernetes, where to find secrets above all, no
/// driver ever sees.
fn parameters(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for text in texts {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            invalid(format!("read the parameter `{}`", text.escape_debug()))
                .object(text)
                .hint(format!("write {flag} KEY=VALUE"))
        })?;
        if parameters
            .insert(key.to_owned(), value.to_owned())
            .is_some()
        {
            return Err(invalid(format!("set the parameter `{key}` twice"))
                .object(key)
                .hint("give each key once"));
        }
    }
    parameters.retain(|key, _| !key.starts_with(FOR_SIDECARS));
    Ok(parameters)
}

/// Removes what runs that died left behind, and gives what stays of it. With the repository at hand, the snapshot of a committed
/// point is known as its base.
fn sweep_up(
    run: &Run,
    driver: &Driver,
    options: &CsiOptions,
    purpose: Purpose<'_>,
    repository: Option<&Repository>,
) -> Result<Vec<Stay>> {
    let swept = sweep::dead_runs(driver, options, purpose, &|begun, snapshot| {
        is_committed(repository, begun, snapshot)
    })?;
    for text in swept.told {
        run.warn(text);
    }
    for stay in &swept.stays {
        run.warn(stay.text());
    }
    Ok(swept.stays)
}

/// Whether the newest point of a run's volume was made from this snapshot; `None` for another repository.
fn is_committed(
    repository: Option<&Repository>,
    begun: &Begun,
    snapshot: &str,
) -> Result<Option<bool>> {
    let ours = repository.filter(|ours| ours.config.repository.to_string() == begun.repository);
    let Some(repository) = ours else {
        return Ok(None);
    };
    let newest = format!("{}@latest", begun.name);
    let point = resolve(repository, &newest).map(|point| point.manifest.identity);
    is_made_from(point, &newest, (begun, snapshot)).map(Some)
}

/// The snapshot that was taken for the newest point of a volume by a run of this repository.
fn recorded(
    repository: &Repository,
    name: &str,
    driver: &str,
    volume: &str,
) -> Result<Option<Recorded>> {
    let newest = format!("{name}@latest");
    match resolve(repository, &newest) {
        Ok(point) => {
            let ours = repository.config.repository.to_string();
            Ok(taken(&point.manifest.identity, (driver, volume, &ours)))
        }
        Err(error)
            if error.kind() == ErrorKind::NotFound && error.object_name() == Some(&*newest) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The snapshot of a point, where all of this is so: a copy of the point in another repository does not own it.
fn taken(
    pairs: &[(String, String)],
    (driver, volume, repository): (&str, &str, &str),
) -> Option<Recorded> {
    let fact = |name: &str| {
        let pair = pairs.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    };
    let is_ours = fact("csi.driver") == Some(driver)
        && fact("csi.volume") == Some(volume)
        && fact("csi.taken-for") == Some(repository);
    let id = fact("csi.snapshot").filter(|_| is_ours)?;
    Some(Recorded {
        id: id.to_owned(),
        created: fact("csi.created").and_then(parse_created),
    })
}

/// Only "there is no such point" is a no: a repository that cannot be asked says nothing. A point of another volume has nothing
/// of this one, whatever its snapshot is called.
fn is_made_from(
    point: Result<Vec<(String, String)>>,
    newest: &str,
    (begun, snapshot): (&Begun, &str),
) -> Result<bool> {
    match point {
        Ok(pairs) => {
            let is = |name: &str, value: &str| {
                let mut found = pairs.iter().filter(|(key, _)| key == name);
                found.any(|(_, recorded)| recorded == value)
            };
            Ok(is("csi.snapshot", snapshot)
                && is("csi.driver", &begun.driver)
                && is("csi.volume", begun.volume.as_deref().unwrap_or_default()))
        }
        Err(error)
            if error.kind() == ErrorKind::NotFound && error.object_name() == Some(newest) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn info(args: &CsiInfoArgs) -> Result<Outcome> {
    let driver = Driver::connect(&options(&args.driver, None, None)?)?;
    let report = DriverReport::of(&driver);
    let text = info_text(&report);
    Outcome::new(&report, Text::Answer(text))
}

fn info_text(report: &DriverReport) -> String {
    let (can, cannot): (Vec<_>, Vec<_>) = report.abilities.iter().partition(|(_, has)| **has);
    let words = |list: Vec<(&&str, &bool)>| {
        let words: Vec<&str> = list.into_iter().map(|(name, _)| *name).collect();
        if words.is_empty() {
            "nothing".to_owned()
        } else {
            words.join(", ")
        }
    };
    let pairs = vec![
        ("driver", format!("{} {}", report.driver, report.version)),
        ("node", report.node.clone()),
        ("can", words(can)),
        ("cannot", words(cannot)),
        (
            "clones",
            match report.profile.clone_cost {
                CloneCost::CopyOnWrite => "share blocks",
                CloneCost::Copy => "are full copies",
                CloneCost::Unknown => "unknown",
            }
            .to_owned(),
        ),
        (
            "snapshots stay",
            match report.profile.base_snapshot {
                BasePolicy::Keep if report.keeps_base => "one for each volume",
                BasePolicy::Keep | BasePolicy::Drop => "none",
            }
            .to_owned(),
        ),
    ];
    let mut text = Table::pairs(pairs).to_string();
    text.push_str("\nprofile (--csi-profile NAME=VALUE):\n");
    let fields = report.profile.pairs();
    let fields = fields.iter().map(|(name, value)| {
        let value = if value.is_empty() {
            unsaid(name)
        } else {
            value
        };
        (name.as_str(), value.to_owned())
    });
    text.push_str(&Table::pairs(fields).to_string());
    for line in &report.meaning {
        text.push('\n');
        text.push_str(line);
    }
    text
}

/// What an empty field of a profile means.
fn unsaid(name: &str) -> &'static str {
    match name {
        "cloneStorageClassName" => "(that of the volume)",
        "snapshotMetadataServiceName" => "(that of the driver)",
        "volumeSnapshotClassName" => "(the driver's default)",
        "maxSnapshotsPerVolume" => "(unlimited)",
        _ => "(none)",
    }
}

#[cfg(test)]
mod tests;
