//! `snaphaul crds`.
//!
//! Owns: nothing but the call. Must not: talk to an API server.

use serde_json::json;

use super::run::{Outcome, Text};
use crate::error::Result;
use crate::kube::crds;

pub(super) fn run() -> Result<Outcome> {
    Outcome::new(
        &json!({ "crds": crds::all()? }),
        Text::Answer(crds::yaml()?),
    )
}
