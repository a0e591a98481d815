//! What a person knows better than the table.
//!
//! Owns: the form of overrides, and how they are laid over what is built in. Must not: read files or ask an API server.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{AttachWay, BasePolicy, CloneAccess, CloneCost, Profile};

/// Why overrides cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    /// A text is not in the form, or has a field that no profile has.
    #[error("the profile of {of}: {reason}")]
    Unreadable {
        /// The driver, or what holds the profiles of all.
        of: String,
        /// What the parser says.
        reason: String,
    },
}

/// The profiles of all drivers: what is built in, and what lies over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles(BTreeMap<String, Override>);

/// Only what differs. Names of fields as in kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Override {
    block: Option<bool>,
    attach_strategy: Option<AttachWay>,
    clone_storage_class_name: Option<String>,
    clone_access_mode: Option<CloneAccess>,
    clone_cost: Option<CloneCost>,
    base_snapshot: Option<BasePolicy>,
    change_id_annotation: Option<String>,
    snapshot_metadata_service_name: Option<String>,
    max_snapshots_per_volume: Option<u32>,
    volume_snapshot_class_name: Option<String>,
}

impl Profiles {
    /// From a text with an entry for each driver, by its name: YAML, or JSON.
    ///
    /// # Errors
    /// [`ProfilesError`] with what the parser says.
    pub fn parse(text: &str) -> Result<Self, ProfilesError> {
        parse("all drivers", text).map(Self)
    }

    /// From a text for each driver, as the entries of a ConfigMap.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, ProfilesError> {
        let entries = entries.into_iter();
        entries
            .map(|(driver, text)| Ok((driver.clone(), parse(driver, text)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The profile of the driver of this name. Overrides are for the whole name; an empty text takes away what is built in.
    #[must_use]
    pub fn of(&self, driver: &str) -> Profile {
        let mut profile = Profile::of(driver);
        if let Some(over) = self.0.get(driver) {
            over.lay_over(&mut profile);
        }
        profile
    }
}

impl Override {
    fn lay_over(&self, profile: &mut Profile) {
        set(&mut profile.block, self.block);
        set(&mut profile.attach_strategy, self.attach_strategy);
        set(&mut profile.clone_access_mode, self.clone_access_mode);
        set(&mut profile.clone_cost, self.clone_cost);
        set(&mut profile.base, self.base_snapshot);
        for (known, over) in [
            (
                &mut profile.clone_storage_class_name,
                &self.clone_storage_class_name,
            ),
            (
                &mut profile.change_id_annotation,
                &self.change_id_annotation,
            ),
            (
                &mut profile.snapshot_metadata_service_name,
                &self.snapshot_metadata_service_name,
            ),
            (
                &mut profile.volume_snapshot_class_name,
                &self.volume_snapshot_class_name,
            ),
        ] {
            if let Some(over) = over {
                *known = Some(over.clone()).filter(|text| !text.is_empty());
            }
        }
        if let Some(most) = self.max_snapshots_per_volume {
            profile.max_snapshots = Some(most).filter(|most| *most > 0);
        }
    }
}

fn set<T: Copy>(known: &mut T, over: Option<T>) {
    if let Some(over) = over {
        *known = over;
    }
}

fn parse<T: serde::de::DeserializeOwned + Default>(
    of: &str,
    text: &str,
) -> Result<T, ProfilesError> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    read(text).map_err(|reason| ProfilesError::Unreadable {
        of: of.to_owned(),
        reason,
    })
}

#[cfg(feature = "kubernetes")]
fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// A build without the parser of YAML reads JSON alone.
#[cfg(not(feature = "kubernetes"))]
fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_differs() {
        let text = r#"{"rbd.csi.ceph.com": {"baseSnapshot": "drop", "cloneStorageClassName": "clones"}, "d": {"cloneCost": "cow"}}"#;
        let profiles = Profiles::parse(text).unwrap();
        let built_in = Profile::of("rbd.csi.ceph.com");
        assert_eq!(
            profiles.of("rbd.csi.ceph.com"),
            Profile {
                base: BasePolicy::Drop,
                clone_storage_class_name: Some("clones".to_owned()),
                ..built_in.clone()
            }
        );
        assert_eq!(profiles.of("d").clone_cost, CloneCost::CopyOnWrite);
        assert_eq!(profiles.of("a.rbd.csi.ceph.com"), built_in);
        assert_eq!(Profiles::parse(" \n").unwrap(), Profiles::default());
    }

    #[test]
    fn an_empty_text_takes_away_what_is_built_in() {
        let name = "csi.vsphere.vmware.com".to_owned();
        let text = r#"{"changeIdAnnotation": "", "maxSnapshotsPerVolume": 0}"#.to_owned();
        let profile = Profiles::from_entries([(&name, &text)]).unwrap().of(&name);
        assert_eq!(profile.change_id_annotation, None);
        assert_eq!(profile.max_snapshots, None);
    }

    #[test]
    fn what_no_profile_has_is_refused() {
        for text in [
            r#"{"d": {"clonecost": "copy"}}"#,
            r#"{"d": {"cloneCost": "dear"}}"#,
            r#"{"d": 1}"#,
            "[]",
            "{",
        ] {
            assert!(Profiles::parse(text).is_err(), "{text}");
        }
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn yaml_is_read_as_well() {
        let text = "# a comment\nd:\n  attachStrategy: direct\n  cloneAccessMode: ReadOnlyMany\nempty: {}\n";
        let profile = Profiles::parse(text).unwrap().of("d");
        assert_eq!(profile.attach_strategy, AttachWay::Direct);
        assert_eq!(profile.clone_access_mode, CloneAccess::ReadOnlyMany);
    }
}
