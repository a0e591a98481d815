//! Who may ask, and which snapshot he means: the questions to the API server.
//!
//! Owns: the order of the checks and their codes. Must not: speak to the driver.

use std::path::Path;

use anyhow::Result;
use csi_proto::Status;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Config};

const GROUP: &str = "snapshot.storage.k8s.io";

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Gate {
    client: Client,
    driver: String,
    audience: String,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) async fn open(kubeconfig: &Path, driver: &str, audience: &str) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            driver: driver.to_owned(),
            audience: audience.to_owned(),
        })
    }

    /// The handle of the snapshot, for who may see it.
    pub(super) async fn handle(
        &self,
        token: &str,
        namespace: &str,
        name: &str,
    ) -> Result<String, Status> {
        for (text, what) in [
            (token, "token"),
            (namespace, "namespace"),
            (name, "snapshot"),
        ] {
            if text.is_empty() {
                return Err(Status::invalid_argument(format!("the {what} is missing")));
            }
        }
        let user = self.user(token).await?;
        self.may_read(user, namespace).await?;
        self.snapshot(namespace, name).await
    }

    async fn user(&self, token: &str) -> Result<UserInfo, Status> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let status = answer.status.unwrap_or_default();
        let audiences = status.audiences.unwrap_or_default();
        if status.authenticated != Some(true) || !audiences.contains(&self.audience) {
            return Err(Status::unauthenticated("unauthenticated user"));
        }
        status
            .user
            .ok_or_else(|| Status::unauthenticated("a token of nobody"))
    }

    async fn may_read(&self, user: UserInfo, namespace: &str) -> Result<(), Status> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("get".to_owned()),
                    group: Some(GROUP.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("volumesnapshots".to_owned()),
                    namespace: Some(namespace.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        Err(Status::permission_denied(
            "user does not have permissions to perform requested operation",
        ))
    }

    async fn snapshot(&self, namespace: &str, name: &str) -> Result<String, Status> {
        let missing = |error: kube::Error| Status::unavailable(error.to_string());
        let resource = resource("VolumeSnapshot", "volumesnapshots");
        let snapshots: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let snapshot = snapshots.get(name).await.map_err(missing)?;
        let ready = snapshot.data.pointer("/status/readyToUse");
        if ready.and_then(serde_json::Value::as_bool) != Some(true) {
            return Err(Status::unavailable("the snapshot is not ready"));
        }
        let content = text(&snapshot, "/status/boundVolumeSnapshotContentName")
            .ok_or_else(|| Status::unavailable("the snapshot is not bound"))?;
        let resource = self::resource("VolumeSnapshotContent", "volumesnapshotcontents");
        let contents: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let content = contents.get(content).await.map_err(missing)?;
        if text(&content, "/spec/driver") != Some(&*self.driver) {
            return Err(Status::invalid_argument("a snapshot of another driver"));
        }
        text(&content, "/status/snapshotHandle")
            .map(str::to_owned)
            .ok_or_else(|| Status::unavailable("the content has no handle"))
    }
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind), plural)
}

fn text<'a>(object: &'a DynamicObject, path: &str) -> Option<&'a str> {
    let value = object.data.pointer(path)?.as_str()?;
    (!value.is_empty()).then_some(value)
}
