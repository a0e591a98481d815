//! A whole Ceph on one machine: monitor, manager, one OSD, and RGW with TLS by a private CA.
//!
//! Owns: its configuration, keys, certificates, start and end. Must not: install it (Debian packages `ceph-mon ceph-mgr
//! ceph-osd radosgw ceph-common openssl`).
//!
//! ```text
//!   keyring ─► mon ─► mgr ─► osd (BlueStore in a sparse file) ─► radosgw :TLS ─► users owner, reader
//! ```

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bucket::Bucket;
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::{Endpoint, Login, S3Server, free_ports, start_again_once};

/// Seen: 20 s in all on an idle 2-core machine; a busy one takes several times that.
const START_LIMIT: Duration = Duration::from_secs(240);
/// Sparse, so that only what is written takes room.
const OSD_BYTES: u64 = 42_949_672_960;

/// A running Ceph; dropping it stops every daemon, gateway first.
#[derive(Debug)]
pub struct Ceph {
    endpoint: Endpoint,
    _daemons: Vec<Process>,
    _folder: Scratch,
}

/// A running Ceph without gateway, for block images; dropping it stops every daemon, OSD first.
#[derive(Debug)]
pub struct BlockCeph {
    daemons: Vec<Process>,
    setup: Setup,
}

#[derive(Debug)]
struct Setup {
    folder: Scratch,
    fsid: String,
    ports: [u16; 3],
}

impl BlockCeph {
    /// The configuration, which names the keyring of `client.admin`.
    #[must_use]
    pub fn conf(&self) -> PathBuf {
        self.setup.folder.join("ceph.conf")
    }

    /// A folder that lives as long as the cluster.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.setup.folder.path()
    }

    /// The monitor, to freeze it.
    #[must_use]
    pub fn monitor(&self) -> &Process {
        &self.daemons[self.daemons.len() - 1]
    }

    /// The OSD, to freeze it.
    #[must_use]
    pub fn osd(&self) -> &Process {
        &self.daemons[0]
    }

    /// Runs `ceph` as the administrator.
    ///
    /// # Errors
    /// With its output where it fails.
    pub fn ceph(&self, args: &[&str]) -> Result<String> {
        self.setup.ceph(args)
    }

    /// Runs `rbd` as the administrator.
    ///
    /// # Errors
    /// With its output where it fails.
    pub fn rbd(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(part::program("rbd", "ceph-common")?);
        part::run(
            command
                .args(["-c", &self.setup.path("ceph.conf")])
                .args(args),
        )
    }

    /// Runs `rados` as the administrator.
    ///
    /// # Errors
    /// With its output where it fails.
    pub fn rados(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(part::program("rados", "ceph-common")?);
        part::run(
            command
                .args(["-c", &self.setup.path("ceph.conf")])
                .args(args),
        )
    }

    /// Makes a pool for images.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub fn pool(&self, name: &str) -> Result<()> {
        self.ceph(&["osd", "pool", "create", name, "8"])?;
        self.rbd(&["pool", "init", name]).map(drop)
    }
}

impl Ceph {
    /// Starts a cluster for block images only: no gateway, no certificates.
    ///
    /// # Errors
    /// Where a package is missing or a daemon does not come up.
    pub fn start_block() -> Result<BlockCeph> {
        start_again_once("Ceph", || {
            let setup = Setup::new()?;
            let daemons = setup.start_core()?;
            Ok(BlockCeph { daemons, setup })
        })
    }

    /// Starts a cluster and its gateway.
    ///
    /// # Errors
    /// Where a package is missing or a daemon does not come up.
    pub fn start() -> Result<Self> {
        let setup = Setup::new()?;
        setup.write_certificates()?;
        let mut daemons = setup.start_core()?;
        daemons.insert(0, setup.daemon("radosgw", &["-n", "client.rgw.a"])?);
        let owner = Login::new("snaphaulowner", "owner-secret-key");
        let reader = Login::new("snaphaulreader", "reader-secret-key");
        setup.add_user("owner", &owner, &[])?;
        setup.add_user("reader", &reader, &["--op-mask=read"])?;
        let endpoint = Endpoint {
            name: "ceph-rgw".to_owned(),
            url: format!("https://127.0.0.1:{}", setup.ports[2]),
            ca_file: Some(setup.folder.join("ca.pem")),
            owner,
            reader: Some(reader),
            reader_needs_policy: true,
        };
        let probe = Bucket::new(&endpoint, "started");
        daemons[0].wait_until(START_LIMIT, || probe.create().is_ok())?;
        Ok(Self {
            endpoint,
            _daemons: daemons,
            _folder: setup.folder,
        })
    }
}

impl S3Server for Ceph {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Setup {
    fn new() -> Result<Self> {
        let folder = Scratch::new("ceph")?;
        for name in ["mon", "mgr", "osd", "rgw", "run", "modules"] {
            std::fs::create_dir(folder.join(name))?;
        }
        let fsid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?
            .trim()
            .to_owned();
        let setup = Self {
            folder,
            fsid,
            ports: free_ports()?,
        };
        std::fs::write(setup.folder.join("ceph.conf"), setup.configuration()?)?;
        Ok(setup)
    }

    /// OSD, manager and monitor, in the order in which they are stopped.
    fn start_core(&self) -> Result<Vec<Process>> {
        self.write_keys()?;
        let monitor = self.start_mon()?;
        self.wait_for_quorum(&monitor)?;
        let mut daemons = vec![monitor];
        self.ceph(&["auth", "import", "-i", &self.path("keyring")])?;
        daemons.insert(0, self.daemon("ceph-mgr", &["-i", "a"])?);
        daemons.insert(0, self.start_osd()?);
        Ok(daemons)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn monitors(&self) -> String {
        format!(
            "[v2:127.0.0.1:{},v1:127.0.0.1:{}]",
            self.ports[0], self.ports[1]
        )
    }

    fn configuration(&self) -> Result<String> {
        let here = self.folder.path().display();
        let mut text = format!(
            "[global]\nfsid = {}\nmon host = {}\n",
            self.fsid,
            self.monitors()
        );
        // One OSD holds everything once: pools of size 1, placement groups chosen per OSD, and no warning about either. A monitor
        // refuses to start where 5 % of the file system are free, however many bytes that is. A lease of an hour (the grace of 20 s
        // times 180): an OSD that is stopped longer than its 16 s, by a test or by the machine, may come back with a placement group
        // that is laggy for ever (seen in one of three; tracker.ceph.com/issues/80404).
        text.push_str(
            "mon initial members = a\npublic addr = 127.0.0.1\ncluster addr = 127.0.0.1\n\
             auth cluster required = cephx\nauth service required = cephx\nauth client required = cephx\n\
             auth allow insecure global id reclaim = false\n\
             osd objectstore = bluestore\nosd crush chooseleaf type = 0\nosd pool default size = 1\n\
             osd pool default min size = 1\nosd pool default pg num = 8\nmon max pg per osd = 1000\n\
             mon allow pool size one = true\nmon warn on pool no redundancy = false\nmgr initial modules =\n\
             mon data avail crit = 0\nmon data avail warn = 0\nosd pool default read lease ratio = 180\n",
        );
        let mut line = |key: &str, value: String| {
            writeln!(text, "{key} = {value}").expect("writing to a String never fails");
        };
        line("bluestore block size", OSD_BYTES.to_string());
        line("keyring", format!("{here}/keyring"));
        line("run dir", format!("{here}/run"));
        line("crash dir", format!("{here}/run"));
        line("osd class dir", class_folder()?.display().to_string());
        // An empty folder: nothing here needs a module of the manager, and loading all takes it 12 s of a core.
        line("mgr module path", format!("{here}/modules"));
        line("admin socket", format!("{here}/run/$name.asok"));
        line("log file", format!("{here}/run/$name.log"));
        line("pid file", format!("{here}/run/$name.pid"));
        for (section, key, folder) in [
            ("mon.a", "mon data", "mon"),
            ("mgr.a", "mgr data", "mgr"),
            ("osd.0", "osd data", "osd"),
        ] {
            line(&format!("[{section}]\n{key}"), format!("{here}/{folder}"));
        }
        line("[client.rgw.a]\nrgw data", format!("{here}/rgw"));
        let tls = format!("ssl_certificate={here}/cert.pem ssl_private_key={here}/key.pem");
        line(
            "rgw frontends",
            format!("beast ssl_endpoint=127.0.0.1:{} {tls}", self.ports[2]),
        );
        Ok(text)
    }

    fn write_keys(&self) -> Result<()> {
        let keyring = self.path("keyring");
        let tool = part::program("ceph-authtool", "ceph-common")?;
        let capabilities: [(&str, &[&str]); 5] = [
            ("mon.", &["mon", "allow *"]),
            (
                "client.admin",
                &["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
            ),
            ("mgr.a", &["mon", "allow profile mgr", "osd", "allow *"]),
            (
                "osd.0",
                &[
                    "mon",
                    "allow profile osd",
                    "osd",
                    "allow *",
                    "mgr",
                    "allow profile osd",
                ],
            ),
            (
                "client.rgw.a",
                &["mon", "allow rw", "osd", "allow rwx", "mgr", "allow rw"],
            ),
        ];
        for (name, caps) in capabilities {
            let mut command = Command::new(&tool);
            if name == "mon." {
                command.arg("--create-keyring");
            }
            command.args([keyring.as_str(), "--gen-key", "-n", name]);
            for pair in caps.chunks(2) {
                command.arg("--cap").args(pair);
            }
            part::run(&mut command)?;
        }
        Ok(())
    }

    /// A CA of our own and a certificate for 127.0.0.1 that only this CA vouches for.
    fn write_certificates(&self) -> Result<()> {
        let openssl = part::program("openssl", "openssl")?;
        let extensions = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
        std::fs::write(self.folder.join("extensions"), extensions)?;
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let call = |args: &[&str]| {
            part::run(
                Command::new(&openssl)
                    .current_dir(self.folder.path())
                    .args(args),
            )
            .map(drop)
        };
        let mut ca = vec![
            "req",
            "-x509",
            "-days",
            "30",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=Test CA",
        ];
        ca.extend(key);
        call(&ca)?;
        let mut request = vec![
            "req",
            "-keyout",
            "key.pem",
            "-out",
            "request.pem",
            "-subj",
            "/CN=127.0.0.1",
        ];
        request.extend(key);
        call(&request)?;
        call(&[
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "extensions",
            "-out",
            "cert.pem",
        ])
    }

    fn start_mon(&self) -> Result<Process> {
        let map = self.path("monmap");
        let mut make = Command::new(part::program("monmaptool", "ceph-common")?);
        part::run(make.args([
            "--create",
            "--fsid",
            &self.fsid,
            "--addv",
            "a",
            &self.monitors(),
            &map,
        ]))?;
        let mut mkfs = Command::new(part::program("ceph-mon", "ceph-mon")?);
        mkfs.args([
            "--mkfs",
            "-i",
            "a",
            "--monmap",
            &map,
            "--keyring",
            &self.path("keyring"),
            "-c",
            &self.path("ceph.conf"),
        ]);
        part::run(&mut mkfs)?;
        self.daemon("ceph-mon", &["-i", "a"])
    }

    /// A client of a monitor that ended waits for it until its own limit, and says nothing about the monitor.
    fn wait_for_quorum(&self, monitor: &Process) -> Result<()> {
        let mut command = Command::new(part::program("ceph", "ceph-common")?);
        command.args(["-c", &self.path("ceph.conf"), "--connect-timeout", "20"]);
        command.arg("mon").arg("stat");
        let answered = monitor.wait_until(START_LIMIT, || part::run(&mut command).is_ok());
        answered.with_context(|| {
            let log = std::fs::read_to_string(self.folder.join("run/mon.a.log"));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(20)..].join("\n");
            format!("the monitor does not answer; its log ends\n{end}")
        })
    }

    fn start_osd(&self) -> Result<Process> {
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?
            .trim()
            .to_owned();
        self.ceph(&["osd", "new", &uuid])?;
        let mut mkfs = Command::new(part::program("ceph-osd", "ceph-osd")?);
        mkfs.args([
            "-i",
            "0",
            "--mkfs",
            "--osd-uuid",
            &uuid,
            "-c",
            &self.path("ceph.conf"),
        ]);
        part::run(&mut mkfs)?;
        self.daemon("ceph-osd", &["-i", "0"])
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Result<Process> {
        let mut all = vec!["-f".to_owned(), "-c".to_owned(), self.path("ceph.conf")];
        all.extend(args.iter().map(ToString::to_string));
        let log: PathBuf = self.folder.join(&format!("{program}.out"));
        Process::start(&part::program(program, program)?, &all, &[], &log)
    }

    fn ceph(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(part::program("ceph", "ceph-common")?);
        command
            .args(["-c", &self.path("ceph.conf"), "--connect-timeout", "120"])
            .args(args);
        part::run(&mut command)
    }

    fn add_user(&self, name: &str, login: &Login, more: &[&str]) -> Result<()> {
        let mut command = Command::new(part::program("radosgw-admin", "radosgw")?);
        command
            .args(["-c", &self.path("ceph.conf"), "user", "create"])
            .args(more);
        command
            .arg(format!("--uid={name}"))
            .arg(format!("--display-name={name}"));
        command
            .arg(format!("--access-key={}", login.access))
            .arg(format!("--secret-key={}", login.secret));
        part::run(&mut command)
            .map(drop)
            .with_context(|| format!("make the gateway's user {name}"))
    }
}

/// Where this release of Debian keeps the classes that OSDs load. Ceph 18 looks for them below the working folder.
fn class_folder() -> Result<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok);
    libraries
        .map(|folder| folder.path().join("rados-classes"))
        .find(|folder| folder.is_dir())
        .context("`rados-classes` is missing: run `tests/run`, which installs it, or `apt-get install ceph-osd`")
}
