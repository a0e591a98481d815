//! What a person knows better than the table.
//!
//! Owns: the form of overrides, and how they are laid over what is built in. Must not: read files or ask an API server.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Profile;

/// Why overrides cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    /// A text is not in the form.
    #[error("the profile of {of}: {reason}")]
    Unreadable {
        /// The driver, or what holds the profiles of all.
        of: String,
        /// What the parser says.
        reason: String,
    },
    /// A field that no profile has, or a value that the field cannot have.
    #[error("the profile of {of}: {field}: {reason}")]
    Field {
        /// The driver, or that it is any.
        of: String,
        /// The name that was written.
        field: String,
        /// What there is.
        reason: String,
    },
}

/// The profiles of all drivers: what is built in, and what lies over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    /// Complete, by the whole name of the driver.
    drivers: BTreeMap<String, Profile>,
    /// Fields that are the same of any driver, in the order in which they were given.
    of_any: Vec<(String, Value)>,
}

impl Profiles {
    /// From a text with an entry for each driver, by its name: YAML, or JSON.
    ///
    /// # Errors
    /// [`ProfilesError`] with the driver and what it lists: the fields, or the values of one.
    pub fn parse(text: &str) -> Result<Self, ProfilesError> {
        let entries: BTreeMap<String, Option<Map<String, Value>>> = read("all drivers", text)?;
        let mut profiles = Self::default();
        for (driver, fields) in entries {
            profiles.lay_over(&driver, fields.unwrap_or_default())?;
        }
        Ok(profiles)
    }

    /// From a text for each driver, as the entries of a ConfigMap.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, ProfilesError> {
        let mut profiles = Self::default();
        for (driver, text) in entries {
            profiles.lay_over(driver, read(driver, text)?)?;
        }
        Ok(profiles)
    }

    /// The same, with what `other` says of drivers over it.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.drivers.extend(other.drivers);
        self.of_any.extend(other.of_any);
        self
    }

    /// The same, with one field of any driver: a flag is for the one driver that a command speaks to. An empty value takes away
    /// what is built in.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, ProfilesError> {
        let anybody = Profile::default();
        let text = match value {
            "" => Value::Null,
            text => Value::String(text.to_owned()),
        };
        let value = match anybody.with(name, text.clone()) {
            Ok(_) => text,
            Err(error) => serde_json::from_str(value)
                .ok()
                .filter(|other: &Value| anybody.with(name, other.clone()).is_ok())
                .ok_or_else(|| refused("this driver", name, &error))?,
        };
        self.of_any.push((name.to_owned(), value));
        Ok(self)
    }

    /// The profile of the driver of this name. Overrides of a driver are for the whole name.
    #[must_use]
    pub fn of(&self, driver: &str) -> Profile {
        let known = self.drivers.get(driver);
        let known = known.cloned().unwrap_or_else(|| Profile::of(driver));
        let fields = self.of_any.iter();
        fields.fold(known, |profile, (name, value)| {
            // It was tried when it came, and no field's values depend on another's.
            profile.with(name, value.clone()).unwrap_or(profile)
        })
    }

    fn lay_over(&mut self, driver: &str, fields: Map<String, Value>) -> Result<(), ProfilesError> {
        let mut profile = Profile::of(driver);
        for (name, value) in fields {
            profile = profile
                .with(&name, value)
                .map_err(|error| refused(driver, &name, &error))?;
        }
        self.drivers.insert(driver.to_owned(), profile);
        Ok(())
    }
}

fn refused(of: &str, field: &str, error: &serde_json::Error) -> ProfilesError {
    ProfilesError::Field {
        of: of.to_owned(),
        field: field.to_owned(),
        reason: error.to_string(),
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(
    of: &str,
    text: &str,
) -> Result<T, ProfilesError> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    parsed(text).map_err(|reason| ProfilesError::Unreadable {
        of: of.to_owned(),
        reason,
    })
}

#[cfg(feature = "kubernetes")]
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// A build without the parser of YAML reads JSON alone.
#[cfg(not(feature = "kubernetes"))]
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{AttachWay, BasePolicy, CloneAccess, CloneCost};
    use super::*;

    #[test]
    fn only_what_is_written_differs() {
        let text = r#"{"rbd.csi.ceph.com": {"baseSnapshot": "drop", "cloneStorageClassName": "clones"}, "d": {"cloneCost": "cow"}, "e": null}"#;
        let profiles = Profiles::parse(text).unwrap();
        let built_in = Profile::of("rbd.csi.ceph.com");
        assert_eq!(
            profiles.of("rbd.csi.ceph.com"),
            Profile {
                base_snapshot: BasePolicy::Drop,
                clone_storage_class_name: Some("clones".to_owned()),
                ..built_in.clone()
            }
        );
        assert_eq!(profiles.of("d").clone_cost, CloneCost::CopyOnWrite);
        assert_eq!(profiles.of("e"), Profile::of("e"));
        assert_eq!(profiles.of("a.rbd.csi.ceph.com"), built_in);
        assert_eq!(Profiles::parse(" \n").unwrap(), Profiles::default());
    }

    #[test]
    fn an_empty_text_takes_away_what_is_built_in() {
        let name = "csi.vsphere.vmware.com".to_owned();
        for text in [
            r#"{"changeIdAnnotation": "", "maxSnapshotsPerVolume": 0}"#,
            r#"{"changeIdAnnotation": null, "maxSnapshotsPerVolume": null}"#,
        ] {
            let text = text.to_owned();
            let profile = Profiles::from_entries([(&name, &text)]).unwrap().of(&name);
            assert_eq!(profile.change_id_annotation, None);
            assert_eq!(profile.max_snapshots_per_volume, None);
        }
    }

    #[test]
    fn what_no_profile_has_is_refused_with_what_there_is() {
        for (text, said) in [
            (
                r#"{"d": {"clonecost": "copy"}}"#,
                &["profile of d", "clonecost", "`cloneCost`", "`block`"][..],
            ),
            (
                r#"{"d": {"cloneCost": "dear"}}"#,
                &["profile of d", "cloneCost", "`cow`", "`copy`"],
            ),
            (
                r#"{"d": {"maxSnapshotsPerVolume": -1}}"#,
                &["maxSnapshotsPerVolume", "-1"],
            ),
            (
                r#"{"d": {"attachStrategy": null}}"#,
                &["attachStrategy", "null"],
            ),
            (r#"{"d": 1}"#, &["all drivers"]),
            ("[]", &[]),
            ("{", &[]),
        ] {
            let error = Profiles::parse(text).unwrap_err().to_string();
            for word in said {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }

    /// What `csi info` prints is what the flag takes, whatever was known before.
    #[test]
    fn each_pair_that_is_printed_can_be_given() {
        let other = Profile {
            block: false,
            attach_strategy: AttachWay::Direct,
            clone_storage_class_name: Some("1".to_owned()),
            clone_access_mode: CloneAccess::ReadOnlyMany,
            clone_cost: CloneCost::CopyOnWrite,
            base_snapshot: BasePolicy::Drop,
            change_id_annotation: Some("true".to_owned()),
            snapshot_metadata_service_name: Some("null".to_owned()),
            max_snapshots_per_volume: Some(7),
            volume_snapshot_class_name: Some("a=b".to_owned()),
        };
        let names = [
            "d",
            "rbd.csi.ceph.com",
            "csi.vsphere.vmware.com",
            "nfs.csi.k8s.io",
        ];
        let all = names.map(Profile::of).into_iter().chain([other]);
        for wanted in all {
            for before in names {
                let pairs = wanted.pairs();
                assert_eq!(pairs.len(), 10);
                let profiles = pairs
                    .iter()
                    .try_fold(Profiles::default(), |profiles, (name, value)| {
                        profiles.with(name, value)
                    })
                    .unwrap();
                assert_eq!(profiles.of(before), wanted, "{before}");
                for (name, value) in &pairs {
                    let one = Profiles::default().with(name, value).unwrap().of(before);
                    let now: BTreeMap<_, _> = one.pairs().into_iter().collect();
                    assert_eq!(now.get(name), Some(value), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_pair_that_means_nothing_is_refused() {
        for (name, value, said) in [
            ("base", "drop", "`baseSnapshot`"),
            ("baseSnapshot", "no", "`keep`"),
            ("baseSnapshot", "", "null"),
            ("block", "maybe", "boolean"),
            ("maxSnapshotsPerVolume", "4.5", "4.5"),
            ("maxSnapshotsPerVolume", "99999999999", "99999999999"),
        ] {
            let error = Profiles::default().with(name, value).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(said) && error.contains(name), "{error}");
        }
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn yaml_is_read_as_well() {
        let text = "# a comment\nd:\n  attachStrategy: Direct\n  cloneAccessMode: ReadOnlyMany\nempty: {}\n";
        let profile = Profiles::parse(text).unwrap().of("d");
        assert_eq!(profile.attach_strategy, AttachWay::Direct);
        assert_eq!(profile.clone_access_mode, CloneAccess::ReadOnlyMany);
        let twice = "d:\n  cloneCost: cow\n  cloneCost: copy\n";
        assert!(Profiles::parse(twice).is_err());
    }
}
