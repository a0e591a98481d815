//! An order, read word for word.
//!
//! Owns: refusing what this agent would carry out otherwise than it is meant: a field or word of a newer controller, a value that cannot
//! be. Must not: carry anything out.
//!
//! The API server refuses most of it already, by definitions that may be newer than this agent.

use serde_json::{Map, Value};

use super::work::Kind;
use crate::kube::api::transfer::TransferOrder;

/// Reads `status.order`.
///
/// # Errors
/// Why it cannot be carried out, with the name of the field.
pub(super) fn read(kind: Kind, order: &Value) -> Result<TransferOrder, String> {
    let fields = order
        .as_object()
        .ok_or_else(|| format!("the order is no object but {order}"))?;
    let read: TransferOrder = serde_json::from_value(order.clone())
        .map_err(|error| format!("the order's {}", with_field(fields, &error)))?;
    if let Some(name) = unknown(fields, &read) {
        let version = env!("CARGO_PKG_VERSION");
        return Err(format!(
            "the order has the field {name}, which this agent (version {version}) does not know: let agents and controller be of one version"
        ));
    }
    check(kind, &read)?;
    Ok(read)
}

/// The error of the field that is to blame for it, by its name.
fn with_field(fields: &Map<String, Value>, error: &serde_json::Error) -> String {
    let alone = |name: &String, value: &Value| {
        let mut order = serde_json::to_value(TransferOrder::default())?;
        if let Value::Object(order) = &mut order {
            order.insert(name.clone(), value.clone());
        }
        serde_json::from_value::<TransferOrder>(order)
    };
    fields
        .iter()
        .find_map(|(name, value)| {
            let error = alone(name, value).err()?;
            Some(format!("field {name} is {value}: {error}"))
        })
        .unwrap_or_else(|| format!("fields: {error}"))
}

/// A field that was lost in reading.
fn unknown<'a>(fields: &'a Map<String, Value>, read: &TransferOrder) -> Option<&'a str> {
    let known = serde_json::to_value(read).ok()?;
    fields
        .iter()
        .find(|(name, value)| !value.is_null() && known.get(name.as_str()).is_none())
        .map(|(name, _)| name.as_str())
}

/// What the types do not say.
fn check(kind: Kind, order: &TransferOrder) -> Result<(), String> {
    let empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
    let wrong = [
        ("attempt", order.attempt < 1),
        ("driver", order.driver.is_empty()),
        ("sizeBytes", order.size_bytes.is_some_and(|size| size < 0)),
        ("volume", kind == Kind::Backup && order.volume.is_empty()),
        ("snapshotHandle", empty(&order.snapshot_handle)),
        ("snapshotName", empty(&order.snapshot_name)),
        ("changeIdAnnotation", empty(&order.change_id_annotation)),
        (
            "snapshotMetadataServiceName",
            empty(&order.snapshot_metadata_service_name),
        ),
    ];
    match wrong.into_iter().find(|(_, is_wrong)| *is_wrong) {
        Some((name, _)) => Err(format!("the order's field {name} cannot be that")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order() -> Value {
        json!({
            "attempt": 1, "strategy": "Pod", "volume": "c/n/v", "driver": "d", "volumeHandle": "",
            "snapshotHandle": "s", "sizeBytes": 0, "since": "2026-11-22T05:00:00Z", "stop": null,
            "changeIdAnnotation": "a", "snapshotMetadataServiceName": "m", "keepsBase": false,
        })
    }

    #[test]
    fn a_good_order_is_read() {
        let read = read(Kind::Backup, &order()).unwrap();
        assert_eq!(read.change_id_annotation.as_deref(), Some("a"));
        assert_eq!(read.keeps_base, Some(false));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (name, value, said) in [
            ("later", json!(true), "version"),
            ("keepBase", json!(true), "version"),
            ("strategy", json!("Sidecar"), "`Pod`"),
            ("strategy", json!(null), "null"),
            ("sizeBytes", json!("1Gi"), "1Gi"),
            ("sizeBytes", json!(-1), ""),
            ("since", json!("yesterday"), "yesterday"),
            ("attempt", json!(0), ""),
            ("driver", json!(""), ""),
            ("volume", json!(""), ""),
            ("snapshotName", json!(""), ""),
            ("changeIdAnnotation", json!(""), ""),
            ("changeIdAnnotation", json!(["a"]), ""),
        ] {
            let mut order = order();
            order[name] = value.clone();
            let error = read(Kind::Backup, &order).unwrap_err();
            assert!(
                error.contains(name) && error.contains(said),
                "{value}: {error}"
            );
        }
        let mut order = order();
        order.as_object_mut().unwrap().remove("driver");
        let error = read(Kind::Backup, &order).unwrap_err();
        assert!(error.contains("driver"), "{error}");
        assert!(read(Kind::Backup, &json!(1)).is_err());
    }

    #[test]
    fn a_restore_needs_no_volume_and_null_is_nothing() {
        let mut order = order();
        order["volume"] = json!("");
        order["later"] = json!(null);
        assert!(read(Kind::Restore, &order).is_ok());
    }
}
