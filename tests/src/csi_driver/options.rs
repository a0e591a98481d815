//! What a driver is told when it starts.
//!
//! Owns: the flags, in both directions. Must not: look at the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Flags of `csi-test-driver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    /// The folder of everything that it keeps.
    pub state: PathBuf,
    /// Whether volumes must be published to a node by the controller first.
    pub attach: bool,
    /// Whether volumes are staged; without, NodePublishVolume attaches the device.
    pub stage: bool,
    /// Whether SnapshotMetadata is served.
    pub metadata: bool,
    /// Whether ranges are FIXED_LENGTH blocks instead of VARIABLE_LENGTH.
    pub fixed: bool,
    /// Unit of ranges in bytes, a power of two.
    pub granularity: u64,
    /// Whether handles hold blanks, slashes and letters beyond ASCII, as those of some drivers do.
    pub odd_handles: bool,
    /// Whether handles hold the names that were asked for.
    pub named_handles: bool,
    /// Whether ListSnapshots looks at the filters of the request.
    pub filters: bool,
    /// How many snapshots ListSnapshots tells at once where the request does not say; 0 for all.
    pub page: i32,
    /// Whether ControllerGetVolume is served.
    pub get_volume: bool,
    /// Whether the controller knows the access modes SINGLE_NODE_SINGLE_WRITER and SINGLE_NODE_MULTI_WRITER.
    pub controller_multi_writer: bool,
    /// Whether the node does.
    pub node_multi_writer: bool,
    /// What every call that carries secrets must bring, if anything.
    pub secrets: BTreeMap<String, String>,
    /// Where the kubelet is told of the driver, if it is.
    pub registration: Option<PathBuf>,
}

impl Options {
    /// A driver that can do everything and asks for nothing; 4 KiB ranges of variable length.
    #[must_use]
    pub fn new(socket: &Path, state: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            state: state.to_owned(),
            attach: false,
            stage: true,
            metadata: true,
            fixed: false,
            granularity: 4096,
            odd_handles: false,
            named_handles: false,
            filters: true,
            page: 0,
            get_volume: true,
            controller_multi_writer: true,
            node_multi_writer: true,
            secrets: BTreeMap::new(),
            registration: None,
        }
    }

    /// Reads flags.
    ///
    /// # Errors
    /// Where one is unknown or has no value.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self::new(Path::new(""), Path::new(""));
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--attach" => options.attach = true,
                "--no-stage" => options.stage = false,
                "--no-metadata" => options.metadata = false,
                "--fixed" => options.fixed = true,
                "--odd-handles" => options.odd_handles = true,
                "--named-handles" => options.named_handles = true,
                "--no-filters" => options.filters = false,
                "--no-get-volume" => options.get_volume = false,
                "--no-controller-multi-writer" => options.controller_multi_writer = false,
                "--no-node-multi-writer" => options.node_multi_writer = false,
                _ => {
                    let value = args
                        .next()
                        .with_context(|| format!("{flag}: unknown, or without its value"))?;
                    options.set(&flag, &value)?;
                }
            }
        }
        ensure!(
            !options.socket.as_os_str().is_empty(),
            "--socket is missing"
        );
        ensure!(!options.state.as_os_str().is_empty(), "--state is missing");
        ensure!(
            options.granularity.is_power_of_two() && options.granularity >= 512,
            "--granularity must be a power of two from 512"
        );
        Ok(options)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "--socket" => self.socket = value.into(),
            "--state" => self.state = value.into(),
            "--granularity" => self.granularity = value.parse().context("--granularity")?,
            "--page" => self.page = value.parse().context("--page")?,
            "--registration" => self.registration = Some(value.into()),
            "--secret" => {
                let (key, secret) = value.split_once('=').context("--secret KEY=VALUE")?;
                self.secrets.insert(key.to_owned(), secret.to_owned());
            }
            _ => bail!("{flag}: unknown flag"),
        }
        Ok(())
    }

    /// The flags that [`Options::parse`] reads as these options.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let mut args = vec![
            "--socket".to_owned(),
            self.socket.display().to_string(),
            "--state".to_owned(),
            self.state.display().to_string(),
            "--granularity".to_owned(),
            self.granularity.to_string(),
            "--page".to_owned(),
            self.page.to_string(),
        ];
        let switches = [
            (self.attach, "--attach"),
            (!self.stage, "--no-stage"),
            (!self.metadata, "--no-metadata"),
            (self.fixed, "--fixed"),
            (self.odd_handles, "--odd-handles"),
            (self.named_handles, "--named-handles"),
            (!self.filters, "--no-filters"),
            (!self.get_volume, "--no-get-volume"),
            (
                !self.controller_multi_writer,
                "--no-controller-multi-writer",
            ),
            (!self.node_multi_writer, "--no-node-multi-writer"),
        ];
        args.extend(
            switches
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, flag)| (*flag).to_owned()),
        );
        for (key, value) in &self.secrets {
            args.extend(["--secret".to_owned(), format!("{key}={value}")]);
        }
        if let Some(path) = &self.registration {
            args.extend(["--registration".to_owned(), path.display().to_string()]);
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut options = Options::new(Path::new("/run/csi.sock"), Path::new("/state"));
        assert_eq!(Options::parse(options.args()).unwrap(), options);
        options.attach = true;
        options.stage = false;
        options.metadata = false;
        options.fixed = true;
        options.odd_handles = true;
        options.named_handles = true;
        options.granularity = 512;
        options.filters = false;
        options.get_volume = false;
        options.controller_multi_writer = false;
        options.node_multi_writer = false;
        options.page = 3;
        options.secrets.insert("user".to_owned(), "a=b".to_owned());
        options.registration = Some("/reg.sock".into());
        assert_eq!(Options::parse(options.args()).unwrap(), options);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(Options::parse(["--what".to_owned()]).is_err());
        assert!(Options::parse(["--what".to_owned(), "x".to_owned()]).is_err());
        assert!(Options::parse(["--fixed".to_owned()]).is_err());
    }
}
