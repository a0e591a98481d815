//! The programs of the control plane: how each is started, and when it is ready.
//!
//! Owns: their flags. Must not: hold them; [`super::Cluster`] does, in the order of their end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use super::audit;
use super::certificates::{Certificates, Pair};
use super::kubeconfig::{self, Credential};
use super::kubectl::Kubectl;
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::free_ports;

/// Seen: 6 s for the API server on an idle 2-core machine; beside compilers it takes many times that.
const START_LIMIT: Duration = Duration::from_secs(180);
/// Names that pods of a real cluster call the API server by.
const API_NAMES: [&str; 3] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// What stays when a program is restarted: folder, ports, certificates.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) folder: Scratch,
    pub(super) certificates: Certificates,
    api: u16,
    etcd: [u16; 2],
    api_pair: Pair,
    kubelet_client: Pair,
}

impl Site {
    pub(super) fn new() -> Result<Self> {
        let folder = Scratch::new("cluster")?;
        for name in ["pki", "etcd", "users", "logs"] {
            std::fs::create_dir(folder.join(name))?;
        }
        let certificates = Certificates::make(&folder.join("pki"))?;
        let [api, client, peer] = free_ports::<3>()?;
        Ok(Self {
            api_pair: certificates.server("kube-apiserver", &API_NAMES)?,
            kubelet_client: certificates
                .client("kube-apiserver-kubelet-client", &["system:masters"])?,
            folder,
            certificates,
            api,
            etcd: [client, peer],
        })
    }

    /// `https://127.0.0.1:PORT`.
    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api)
    }

    /// The port of the API server.
    pub(super) fn port(&self) -> u16 {
        self.api
    }

    /// A kubeconfig of a user with a certificate.
    pub(super) fn user(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let pair = self.certificates.client(user, groups)?;
        self.write_user(user, &Credential::Certificate(&pair), "default")
    }

    /// A kubeconfig with any credential; `name` becomes its file's.
    pub(super) fn write_user(
        &self,
        name: &str,
        credential: &Credential<'_>,
        namespace: &str,
    ) -> Result<PathBuf> {
        let file = format!("{}.kubeconfig", name.replace([':', '/'], "-"));
        let path = self.folder.join("users").join(file);
        let authority = self.certificates.authority();
        kubeconfig::write(&path, &self.url(), &authority, credential, namespace)?;
        Ok(path)
    }

    pub(super) fn kubectl(&self) -> Result<Kubectl> {
        let admin = self.user("admin", &["system:masters"])?;
        let cache = self.folder.join("kubectl-cache");
        Ok(Kubectl::new(program("kubectl")?, &admin, &cache))
    }

    pub(super) fn start_etcd(&self) -> Result<Process> {
        let [client, peer] = self.etcd.map(|port| format!("http://127.0.0.1:{port}"));
        let args = [
            format!("--data-dir={}", self.folder.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // A cluster of a test outlives no crash of the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.start("etcd", &args)
    }

    /// Waits until it answers `/readyz` as well, so that a request after this is not refused for its youth.
    pub(super) fn start_api_server(&self, kubectl: &Kubectl) -> Result<Process> {
        let pki = &self.certificates;
        let policy = self.folder.join("audit-policy.yaml");
        std::fs::write(&policy, audit::policy())?;
        let args = [
            format!("--audit-policy-file={}", policy.display()),
            format!(
                "--audit-log-path={}",
                audit::path(self.folder.path()).display()
            ),
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd[0]),
            format!("--secure-port={}", self.api),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // The `kubernetes` service may not have an endpoint on the loopback address.
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--tls-cert-file={}", self.api_pair.certificate.display()),
            format!("--tls-private-key-file={}", self.api_pair.key.display()),
            format!("--client-ca-file={}", pki.authority().display()),
            format!(
                "--kubelet-client-certificate={}",
                self.kubelet_client.certificate.display()
            ),
            format!("--kubelet-client-key={}", self.kubelet_client.key.display()),
            format!(
                "--kubelet-certificate-authority={}",
                pki.authority().display()
            ),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!(
                "--service-account-key-file={}",
                pki.token_public_key().display()
            ),
            format!(
                "--service-account-signing-key-file={}",
                pki.token_key().display()
            ),
        ];
        let process = self.start("kube-apiserver", &args)?;
        process.wait_until_polling(super::POLL, START_LIMIT, || {
            kubectl.run(&["get", "--raw=/readyz"]).is_ok()
        })?;
        Ok(process)
    }

    pub(super) fn start_controller_manager(&self) -> Result<Process> {
        let pki = &self.certificates;
        let args = [
            format!(
                "--service-account-private-key-file={}",
                pki.token_key().display()
            ),
            format!("--root-ca-file={}", pki.authority().display()),
            format!("--cluster-signing-cert-file={}", pki.authority().display()),
            format!(
                "--cluster-signing-key-file={}",
                pki.authority_key().display()
            ),
            "--use-service-account-credentials=true".to_owned(),
        ];
        self.start_client("kube-controller-manager", &args)
    }

    pub(super) fn start_scheduler(&self) -> Result<Process> {
        self.start_client("kube-scheduler", &[])
    }

    /// What both have in common: one instance, which need not win an election, and a port that nobody else has.
    fn start_client(&self, name: &str, more: &[String]) -> Result<Process> {
        let kubeconfig = self.user(&format!("system:{name}"), &[])?;
        let pair = self.certificates.server(name, &[])?;
        let [port] = free_ports::<1>()?;
        let mut args = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", pair.certificate.display()),
            format!("--tls-private-key-file={}", pair.key.display()),
        ];
        args.extend_from_slice(more);
        let process = self.start(name, &args)?;
        process.wait_until(START_LIMIT, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok(process)
    }

    /// Starts a program of the cache, none of which has anything to bring to an end when the cluster does; its log carries its name, and that of an earlier start is kept beside it.
    pub(super) fn start(&self, name: &str, args: &[String]) -> Result<Process> {
        let log = self.log(name);
        if log.exists() {
            std::fs::rename(&log, log.with_extension("previous"))?;
        }
        Process::start(&program(name)?, args, &[], &log).map(Process::without_grace)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }
}

/// One of the programs that `tests/run` builds.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let path = part::cache().join("bin").join(name);
    if !path.is_file() {
        bail!(
            "{name} is missing at {}: run `tests/run`, which builds it",
            path.display()
        );
    }
    Ok(path)
}
