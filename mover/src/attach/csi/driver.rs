//! One driver: the connection, what it can do, and the calls with their words.
//!
//! Owns: the connection, and what of an answer is believed. Must not: know the order of the calls, or write the journal.

mod abilities;
mod capacity;
mod controller;
mod listing;
mod made;
mod node;
mod pages;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use csi_proto::csi::{self, controller_client, identity_client, node_client};
use csi_proto::{Channel, Request, connect};

use super::answer::Rpc;
use super::call::{CallError, Caller, answered, incomplete};
use super::options::CsiOptions;
use super::profile::{Profile, Profiles};
use super::runtime::ControlPlane;
use super::socket;
use super::timing::Timing;
use crate::error::{Error, ErrorKind, Result};
pub use abilities::Abilities;
pub use made::{MadeSnapshot, MadeVolume};

type Answer<T> = std::result::Result<T, CallError>;

/// A driver that answers.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of this node.
    pub node: String,
    /// Where this node is, where the driver cares.
    pub topology: Option<BTreeMap<String, String>>,
    /// What it can do.
    pub abilities: Abilities,
    /// What is known of it beside that.
    pub profile: Profile,
    /// Its socket, by the one path that does not depend on how somebody wrote it.
    pub socket: PathBuf,
    controller: Channel,
    node_channel: Channel,
    caller: Caller,
    profiles: Profiles,
}

impl Driver {
    /// Connects, and asks what there is to know.
    ///
    /// # Errors
    /// `Unavailable` where nobody answers, or only somebody who is not ready; what the driver answers.
    pub fn connect(options: &CsiOptions) -> Result<Self> {
        let runtime = ControlPlane::start()?;
        let given = socket::given(&options.socket)?;
        let socket = socket::canonical(&given);
        let controller = open(&runtime, &given)?;
        let node_channel = match &options.node_socket {
            Some(socket) => open(&runtime, &socket::given(socket)?)?,
            None => controller.clone(),
        };
        let caller = Caller {
            runtime,
            secrets: options.secrets.clone(),
            deadlines: options.deadlines,
            timing: Timing::default(),
            driver: given.display().to_string(),
        };
        let mut driver = Self {
            name: String::new(),
            version: String::new(),
            node: String::new(),
            topology: None,
            abilities: Abilities::default(),
            profile: Profile::of(""),
            profiles: options.profiles.clone(),
            socket,
            controller,
            node_channel,
            caller,
        };
        driver.probe()?;
        driver.ask_names()?;
        driver.ask_abilities()?;
        Ok(driver)
    }

    /// The clock of this run.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.caller.timing
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn channel(&self) -> Channel {
        self.controller.clone()
    }

    /// The same driver, whose answers to what is taken back are not waited for as long.
    pub(super) fn with_patience(&self, longest: Duration) -> Self {
        let mut driver = self.clone();
        let deadlines = &mut driver.caller.deadlines;
        deadlines.call = deadlines.call.min(longest);
        deadlines.snapshot = deadlines.snapshot.min(longest);
        deadlines.expose = deadlines.expose.min(longest);
        driver
    }

    fn probe(&self) -> Result<()> {
        let client = identity_client::IdentityClient::new(self.controller.clone());
        let answer = self.caller.call(Rpc::Probe, &self.caller.driver, None, || {
            let mut client = client.clone();
            async move { client.probe(csi::ProbeRequest {}).await }
        });
        match answered(Rpc::Probe, &self.caller.driver, answer)?.ready {
            Some(false) => Err(
                Error::new(ErrorKind::Unavailable, "the driver is not ready yet")
                    .object(self.socket.display())
                    .hint("run again when it is; its log tells what it waits for"),
            ),
            _ => Ok(()),
        }
    }

    fn ask_names(&mut self) -> Result<()> {
        let client = identity_client::IdentityClient::new(self.controller.clone());
        let answer = self
            .caller
            .call(Rpc::GetPluginInfo, &self.caller.driver, None, || {
                let mut client = client.clone();
                async move { client.get_plugin_info(csi::GetPluginInfoRequest {}).await }
            });
        let info = answered(Rpc::GetPluginInfo, &self.caller.driver, answer)?;
        if info.name.is_empty() {
            return Err(incomplete(Rpc::GetPluginInfo, &self.caller.driver, "name"));
        }
        self.caller.driver.clone_from(&info.name);
        self.profile = self.profiles.of(&info.name);
        (self.name, self.version) = (info.name, info.vendor_version);
        let client = self.node_client();
        let answer = self.caller.call(Rpc::NodeGetInfo, &self.name, None, || {
            let mut client = client.clone();
            async move { client.node_get_info(csi::NodeGetInfoRequest {}).await }
        });
        let node = answered(Rpc::NodeGetInfo, &self.name, answer).map_err(|error| {
            error.hint("where the node part of the driver has a socket of its own, give it with --csi-node-socket")
        })?;
        self.node = node.node_id;
        self.topology = node.accessible_topology.map(|place| place.segments);
        Ok(())
    }

    fn ask_abilities(&mut self) -> Result<()> {
        let driver = self.name.clone();
        let client = identity_client::IdentityClient::new(self.controller.clone());
        let rpc = Rpc::GetPluginCapabilities;
        let answer = self.caller.call(rpc, &driver, None, || {
            let mut client = client.clone();
            async move {
                let request = csi::GetPluginCapabilitiesRequest {};
                client.get_plugin_capabilities(request).await
            }
        });
        let plugin = answered(rpc, &driver, answer)?;
        self.abilities.take_plugin(&plugin);
        if self.abilities.controller {
            let rpc = Rpc::ControllerGetCapabilities;
            let client = self.controller_client();
            let answer = self.caller.call(rpc, &driver, None, || {
                let mut client = client.clone();
                async move {
                    let request = csi::ControllerGetCapabilitiesRequest {};
                    client.controller_get_capabilities(request).await
                }
            });
            let controller = answered(rpc, &driver, answer)?;
            self.abilities.take_controller(&controller);
        }
        let rpc = Rpc::NodeGetCapabilities;
        let client = self.node_client();
        let answer = self.caller.call(rpc, &driver, None, || {
            let mut client = client.clone();
            async move {
                let request = csi::NodeGetCapabilitiesRequest {};
                client.node_get_capabilities(request).await
            }
        });
        let node = answered(rpc, &driver, answer)?;
        self.abilities.take_node(&node);
        Ok(())
    }

    fn controller_client(&self) -> controller_client::ControllerClient<Channel> {
        controller_client::ControllerClient::new(self.controller.clone())
    }

    fn node_client(&self) -> node_client::NodeClient<Channel> {
        node_client::NodeClient::new(self.node_channel.clone())
    }

    /// One attempt at a request: the driver learns how long we wait.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.caller.deadlines.call);
        request
    }

    /// Something was made, and nobody knows what it is called.
    fn unclear(&self, rpc: Rpc, what: &str) -> CallError {
        CallError {
            error: incomplete(rpc, &self.name, what),
            outcome: super::answer::Outcome::Unknown,
            code: None,
        }
    }
}

fn open(runtime: &ControlPlane, socket: &Path) -> Result<Channel> {
    let connected = runtime.wait(connect::unix(socket));
    connected.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "connect to the driver")
            .object(socket.display())
            .hint("--csi-socket names the socket of a driver that runs on this node, e.g. /var/lib/kubelet/plugins/NAME/csi.sock")
            .source(error)
    })
}
