//! What the words of closed sets mean, from the documentation of their variants.
//!
//! Owns: finding them. Must not: hold text of its own.

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use crate::kube::api::{
    PodVolumeBackupSpec, PodVolumeBackupStatus, PodVolumeRestoreSpec, PodVolumeRestoreStatus,
    SnapshotRepositorySpec, SnapshotRepositoryStatus,
};

/// Closed sets of words, each word with its meaning.
#[derive(Debug)]
pub(super) struct Meanings(Vec<Vec<(String, String)>>);

impl Meanings {
    /// Those of all enums that the resources use.
    pub(super) fn collect() -> Self {
        let mut sets = Vec::new();
        for schema in [
            definitions::<PodVolumeBackupSpec>(),
            definitions::<PodVolumeBackupStatus>(),
            definitions::<PodVolumeRestoreSpec>(),
            definitions::<PodVolumeRestoreStatus>(),
            definitions::<SnapshotRepositorySpec>(),
            definitions::<SnapshotRepositoryStatus>(),
        ] {
            let types = schema
                .as_object()
                .into_iter()
                .flat_map(|types| types.values());
            sets.extend(types.map(variants));
        }
        Self(sets)
    }

    /// Those of the enum that has exactly these words, in this order.
    pub(super) fn of(&self, words: &[&str]) -> Option<&[(String, String)]> {
        let same = |set: &&Vec<(String, String)>| {
            set.len() == words.len() && set.iter().zip(words).all(|(one, word)| one.0 == **word)
        };
        self.0.iter().find(same).map(Vec::as_slice)
    }
}

/// The types that `T` uses, as the plain schema names them: only there are variants described one by one.
fn definitions<T: JsonSchema>() -> Value {
    schema_for!(T).get("$defs").cloned().unwrap_or_default()
}

fn variants(schema: &Value) -> Vec<(String, String)> {
    let text = |variant: &Value, key: &str| Some(variant.get(key)?.as_str()?.replace('\n', " "));
    let variants = schema.get("oneOf").and_then(Value::as_array);
    variants
        .into_iter()
        .flatten()
        .filter_map(|variant| Some((text(variant, "const")?, text(variant, "description")?)))
        .collect()
}
