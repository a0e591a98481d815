//! Tells a kubelet of the driver, as node-driver-registrar does for others.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::core::{Core, Job, NAME};
use super::describe::{Describe, Subject, describe};
use super::pluginregistration::registration_server::{Registration, RegistrationServer};
use super::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};

describe!(InfoRequest, "GetInfo", |_r| {});
describe!(RegistrationStatus, "NotifyRegistrationStatus", |r| { name: r.error.clone() });

/// The service of the registration socket.
#[derive(Clone, Debug)]
pub(super) struct Registrar(Arc<Core>);

impl Registrar {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    pub(super) fn service(self) -> RegistrationServer<Self> {
        RegistrationServer::new(self)
    }
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(
        &self,
        request: Request<InfoRequest>,
    ) -> Result<Response<PluginInfo>, Status> {
        self.0.run(request, info).await
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        self.0
            .run(request, |_, _| Ok(RegistrationStatusResponse {}))
            .await
    }
}

fn info(job: &Job, _request: &InfoRequest) -> Result<PluginInfo, Status> {
    Ok(PluginInfo {
        r#type: "CSIPlugin".to_owned(),
        name: NAME.to_owned(),
        endpoint: job.core.options.socket.display().to_string(),
        supported_versions: vec!["1.0.0".to_owned()],
    })
}
