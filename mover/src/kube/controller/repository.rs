//! stub
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Context;
use super::queue::Again;
use super::watches::Key;
use crate::error::Result;

/// Looks.
///
/// # Errors
/// What the API server answers.
pub async fn reconcile(_context: &Context, _key: &Key) -> Result<Again> {
    Ok(Again::OnChange)
}

/// Whether a label selector takes these labels. Without one everything is taken, as the field is documented.
#[must_use]
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else {
        return true;
    };
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.into_iter().all(|expression| {
            let value = labels.get(&expression.key);
            let values = expression.values.as_deref().unwrap_or_default();
            let named = value.is_some_and(|value| values.contains(value));
            match expression.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
