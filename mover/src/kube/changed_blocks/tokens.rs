//! Tokens for the service of a driver, made for our own service account.
//!
//! Owns: the request, and until when a token is used. Must not: keep or log a token (`ClusterMetadata` keeps the last one).

use std::time::{Duration, SystemTime};

use changed_blocks::csi::{Token, TokenError, TokenFuture, TokenSource};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::error::{Error, ErrorKind, Result};
use crate::kube::refusal::{Rule, code, failed};

/// The shortest that an API server grants. A token is checked once, when a call starts, and renewed before it ends.
pub const LIFETIME: Duration = Duration::from_secs(600);

const CREATE: Rule = Rule {
    verb: "create",
    group: "",
    resource: "serviceaccounts/token",
};
const WHO: Rule = Rule {
    verb: "create",
    group: "authentication.k8s.io",
    resource: "selfsubjectreviews",
};
/// What user names of service accounts begin with.
const USER: &str = "system:serviceaccount:";

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// The one that a user name stands for; none where it is somebody else's.
    #[must_use]
    pub fn of_user(user: &str) -> Option<Self> {
        let (namespace, name) = user.strip_prefix(USER)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The one that this process is, by the word of the API server.
    ///
    /// # Errors
    /// `InvalidRequest` where it is a person or a node; what the API server answers.
    pub async fn own(client: &Client) -> Result<Self> {
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let review = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
            .map_err(|error| failed(error, &WHO, "who this is"))?;
        let user = review.status.and_then(|status| status.user_info);
        let user = user.and_then(|info| info.username).unwrap_or_default();
        Self::of_user(&user).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                "make a token for the service of the driver without a service account",
            )
            .object(&user)
            .hint("name a service account that may read VolumeSnapshots")
        })
    }
}

/// Makes tokens of a service account for one audience.
#[derive(Clone)]
pub struct AccountTokens {
    client: Client,
    account: Account,
    audience: String,
}

impl std::fmt::Debug for AccountTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountTokens")
            .field("account", &self.account)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl AccountTokens {
    /// For `account`, accepted by whoever serves `audience` and by nobody else.
    #[must_use]
    pub fn new(client: Client, account: Account, audience: String) -> Self {
        Self {
            client,
            account,
            audience,
        }
    }

    async fn make(&self) -> Result<Token, TokenError> {
        let Account { namespace, name } = &self.account;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![self.audience.clone()],
                expiration_seconds: i64::try_from(LIFETIME.as_secs()).ok(),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let asked = SystemTime::now();
        let made = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .map_err(|error| self.refused(&error))?;
        let status = made
            .status
            .ok_or_else(|| TokenError::Unreachable("the API server made none".to_owned()))?;
        Ok(Token {
            secret: status.token,
            // Two clocks may differ: whichever says that it ends first is believed.
            expires: SystemTime::from(status.expiration_timestamp.0).min(asked + LIFETIME),
        })
    }

    /// What the API server says is told; it never repeats a token.
    fn refused(&self, error: &kube::Error) -> TokenError {
        let Account { namespace, name } = &self.account;
        match code(error) {
            Some(403) => TokenError::Refused(format!(
                "a role must allow in namespace {namespace}: {CREATE}, resourceNames [{name}]: {error}"
            )),
            Some(404) => TokenError::Refused(format!(
                "there is no service account {namespace}/{name}: {error}"
            )),
            Some(400 | 401 | 422) => TokenError::Refused(error.to_string()),
            _ => TokenError::Unreachable(error.to_string()),
        }
    }
}

impl TokenSource for AccountTokens {
    fn token(&mut self) -> TokenFuture<'_> {
        Box::pin(self.make())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_accounts_or_not() {
        let account = Account::of_user("system:serviceaccount:a:b").unwrap();
        assert_eq!((&*account.namespace, &*account.name), ("a", "b"));
        for user in [
            "",
            "admin",
            "system:node:a",
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:",
        ] {
            assert_eq!(Account::of_user(user), None, "{user}");
        }
    }
}
