//! The programs that stand between Kubernetes and CSI drivers, from the projects of kubernetes-csi.
//!
//! Owns: their flags; one snapshot controller a cluster, one set of the others a driver. Must not: start the driver.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use super::control_plane::Site;
use crate::csi_driver::NAME;
use crate::process::Process;

/// First wait after a failed call; the default of a second makes every race of a test last as long.
const RETRY: &str = "--retry-interval-start=100ms";
/// The defaults of 5 calls a second are those of a shared cluster.
const RATES: [&str; 2] = ["--kube-api-qps=100", "--kube-api-burst=200"];
/// How long a sidecar may take to find out that it must end, e.g. for a flag it does not know.
const SETTLE: Duration = Duration::from_millis(200);

/// What serves one driver; dropping it stops all of them. They end by themselves when the driver closes their connection, for in a
/// pod they would be started again: whoever restarts the driver starts them again as well.
#[derive(Debug)]
pub struct Sidecars {
    _processes: Vec<Process>,
}

impl Sidecars {
    /// Starts csi-provisioner, csi-snapshotter, csi-attacher and csi-resizer for the driver that listens on `socket`. The attacher answers for
    /// drivers without attachment as well, as in every cluster whose CSIDriver object does not rule it out.
    ///
    /// # Errors
    /// Where one is missing or ends at once.
    pub fn start(cluster: &Cluster, socket: &Path) -> Result<Self> {
        let site = &cluster.site;
        let kubeconfig = site.user("csi-sidecars", &["system:masters"])?;
        let start = |name: &str, more: &[&str]| {
            let mut args = vec![
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--csi-address={}", socket.display()),
                RETRY.to_owned(),
            ];
            args.extend(RATES.iter().chain(more).map(ToString::to_string));
            site.start(name, &args)
        };
        let processes = vec![
            start("csi-provisioner", &["--extra-create-metadata=true"])?,
            start("csi-snapshotter", &["--extra-create-metadata=true"])?,
            start("csi-attacher", &[])?,
            start("csi-resizer", &["--handle-volume-inuse-error=false"])?,
        ];
        for process in &processes {
            stays(process)?;
        }
        Ok(Self {
            _processes: processes,
        })
    }
}

/// What a cluster knows of the driver of the tests: its CSIDriver object, and the storage class and snapshot class `test`, which are
/// the defaults. Volumes are bound at once and can grow.
#[must_use]
pub fn test_classes(attach: bool) -> String {
    format!(
        "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {{name: {NAME}}}
spec: {{attachRequired: {attach}, podInfoOnMount: false}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: test, annotations: {{storageclass.kubernetes.io/is-default-class: 'true'}}}}
provisioner: {NAME}
allowVolumeExpansion: true
volumeBindingMode: Immediate
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {{name: test, annotations: {{snapshot.storage.kubernetes.io/is-default-class: 'true'}}}}
driver: {NAME}
deletionPolicy: Delete
"
    )
}

/// Starts the snapshot controller.
pub(super) fn start_snapshot_controller(site: &Site) -> Result<Process> {
    let kubeconfig = site.user("snapshot-controller", &["system:masters"])?;
    let mut args = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        RETRY.to_owned(),
        // Groups have definitions of their own, which no test needs.
        "--feature-gates=CSIVolumeGroupSnapshot=false".to_owned(),
    ];
    args.extend(RATES.iter().map(ToString::to_string));
    let process = site.start("snapshot-controller", &args)?;
    stays(&process)?;
    Ok(process)
}

/// They have no port to ask: a program that is there after a moment has understood its flags.
fn stays(process: &Process) -> Result<()> {
    let begin = std::time::Instant::now();
    process.wait_until(SETTLE * 10, || begin.elapsed() > SETTLE)
}
