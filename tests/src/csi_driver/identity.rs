//! The Identity service.

use csi_proto::csi::identity_server::Identity;
use csi_proto::csi::plugin_capability::service::Type as ServiceType;
use csi_proto::csi::plugin_capability::volume_expansion::Type as ExpansionType;
use csi_proto::csi::plugin_capability::{Service as ServiceCapability, Type, VolumeExpansion};
use csi_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status};

use super::Service;
use super::core::{Job, NAME};

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        self.0.run(request, info).await
    }

    async fn get_plugin_capabilities(
        &self,
        request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        self.0.run(request, capabilities).await
    }

    async fn probe(
        &self,
        request: Request<ProbeRequest>,
    ) -> Result<Response<ProbeResponse>, Status> {
        self.0
            .run(request, |_, _| Ok(ProbeResponse { ready: Some(true) }))
            .await
    }
}

fn info(_job: &Job, _request: &GetPluginInfoRequest) -> Result<GetPluginInfoResponse, Status> {
    Ok(GetPluginInfoResponse {
        name: NAME.to_owned(),
        vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..GetPluginInfoResponse::default()
    })
}

fn capabilities(
    job: &Job,
    _request: &GetPluginCapabilitiesRequest,
) -> Result<GetPluginCapabilitiesResponse, Status> {
    let mut services = vec![
        ServiceType::ControllerService,
        ServiceType::GroupControllerService,
    ];
    if job.core.options.metadata {
        services.push(ServiceType::SnapshotMetadataService);
    }
    let mut capabilities: Vec<_> = services
        .into_iter()
        .map(|service| PluginCapability {
            r#type: Some(Type::Service(ServiceCapability {
                r#type: service.into(),
            })),
        })
        .collect();
    let online = VolumeExpansion {
        r#type: ExpansionType::Online.into(),
    };
    capabilities.push(PluginCapability {
        r#type: Some(Type::VolumeExpansion(online)),
    });
    Ok(GetPluginCapabilitiesResponse { capabilities })
}
