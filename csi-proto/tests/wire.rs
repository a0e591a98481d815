//! The bytes on the wire: every message, field, number, type and call of `proto/` against the published interfaces, whose facts
//! are in `data/csi-wire.json`.

#![allow(
    clippy::panic,
    reason = "a test says what differs, from its own functions too"
)]

use std::collections::BTreeSet;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    Value as Option_,
};
use serde_json::{Map, Value};

/// What the interface has and `proto/` leaves out on purpose.
const LEFT_OUT: [&str; 7] = [
    "VolumeCondition",
    "ControllerModifyVolumeRequest",
    "ControllerModifyVolumeResponse",
    "ControllerModifyVolume",
    "ControllerGetVolumeResponse.VolumeStatus.volume_condition",
    "ListVolumesResponse.VolumeStatus.volume_condition",
    "NodeGetVolumeStatsResponse.volume_condition",
];

fn facts() -> Value {
    serde_json::from_str(include_str!("data/csi-wire.json")).expect("the facts are JSON")
}

fn pool() -> DescriptorPool {
    let mut compiler =
        protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/proto")]).expect("a folder");
    compiler.include_imports(true);
    compiler
        .open_files(["csi.proto", "snapshot_metadata.proto"])
        .expect("both files compile");
    compiler.descriptor_pool()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// A name without its package: `csi.v1.Volume` is `Volume`.
fn relative(package: &str, full: &str) -> String {
    full.strip_prefix(package)
        .map_or(full, |rest| rest.trim_start_matches('.'))
        .to_owned()
}

fn type_name(package: &str, field: &FieldDescriptor) -> String {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map is a message")
        };
        let part = |number| {
            type_name(
                package,
                &entry.get_field(number).expect("a key and a value"),
            )
        };
        return format!("map<{},{}>", part(1), part(2));
    }
    match field.kind() {
        Kind::Message(message) => relative(package, message.full_name()),
        Kind::Enum(values) => relative(package, values.full_name()),
        Kind::String => "string".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Bool => "bool".to_owned(),
        other => panic!(
            "{}: {other:?} is a type the interface does not use",
            field.full_name()
        ),
    }
}

fn label(field: &FieldDescriptor) -> &'static str {
    match field.cardinality() {
        Cardinality::Repeated if field.is_map() => "map",
        Cardinality::Repeated => "repeated",
        _ => "singular",
    }
}

fn is_secret(pool: &DescriptorPool, field: &FieldDescriptor) -> bool {
    let option = pool
        .get_extension_by_name("csi.v1.csi_secret")
        .expect("the option is declared");
    *field.options().get_extension(&option) == Option_::Bool(true)
}

fn check_message(
    pool: &DescriptorPool,
    package: &str,
    message: &MessageDescriptor,
    fields: &Map<String, Value>,
) {
    let name = relative(package, message.full_name());
    let mut ours = BTreeSet::new();
    for field in message.fields() {
        let at = format!("{name}.{}", field.name());
        let fact = fields
            .get(field.name())
            .unwrap_or_else(|| panic!("{at} is not in the interface"));
        assert_eq!(
            u64::from(field.number()),
            fact["number"].as_u64().expect("a number"),
            "number of {at}"
        );
        assert_eq!(
            type_name(package, &field),
            fact["type"].as_str().expect("a type"),
            "type of {at}"
        );
        assert_eq!(
            label(&field),
            fact["label"].as_str().expect("a label"),
            "label of {at}"
        );
        let oneof = field
            .containing_oneof()
            .map(|oneof| oneof.name().to_owned());
        assert_eq!(oneof.as_deref(), fact["oneof"].as_str(), "oneof of {at}");
        assert_eq!(
            is_secret(pool, &field),
            fact["secret"] == Value::Bool(true),
            "secrecy of {at}"
        );
        ours.insert(field.name().to_owned());
    }
    for field in fields.keys() {
        let at = format!("{name}.{field}");
        assert!(
            ours.contains(field) || LEFT_OUT.contains(&at.as_str()),
            "{at} is missing"
        );
    }
}

fn check_enum(package: &str, values: &EnumDescriptor, facts: &Map<String, Value>) {
    let ours: Map<String, Value> = values
        .values()
        .map(|value| (value.name().to_owned(), value.number().into()))
        .collect();
    assert_eq!(
        &ours,
        facts,
        "values of {}",
        relative(package, values.full_name())
    );
}

#[test]
fn messages_and_enumerations_are_those_of_the_interface() {
    let (facts, pool) = (facts(), pool());
    for package in ["csi.v1", "snapshotmetadata"] {
        let facts = &facts[package];
        let mut seen = BTreeSet::new();
        let messages = object(&facts["messages"]);
        for message in pool
            .all_messages()
            .filter(|m| m.package_name() == package && !m.is_map_entry())
        {
            let name = relative(package, message.full_name());
            let fields = messages
                .get(&name)
                .unwrap_or_else(|| panic!("{name} is not in the interface"));
            check_message(&pool, package, &message, object(fields));
            seen.insert(name);
        }
        for name in messages.keys() {
            assert!(
                seen.contains(name) || LEFT_OUT.contains(&name.as_str()),
                "{name} is missing"
            );
        }
        let enums = object(&facts["enums"]);
        let ours: Vec<_> = pool
            .all_enums()
            .filter(|e| e.full_name().starts_with(package))
            .collect();
        assert_eq!(ours.len(), enums.len(), "enumerations of {package}");
        for values in ours {
            check_enum(
                package,
                &values,
                object(&enums[&relative(package, values.full_name())]),
            );
        }
    }
}

#[test]
fn calls_are_those_of_the_interface() {
    let (facts, pool) = (facts(), pool());
    let mut calls = 0;
    for package in ["csi.v1", "snapshotmetadata"] {
        for (service, facts) in object(&facts[package]["services"]) {
            let ours = pool
                .get_service_by_name(&format!("{package}.{service}"))
                .unwrap_or_else(|| panic!("{service} is missing"));
            for (call, fact) in object(facts) {
                let Some(method) = ours.methods().find(|method| method.name() == call) else {
                    assert!(LEFT_OUT.contains(&call.as_str()), "{call} is missing");
                    continue;
                };
                assert_eq!(
                    format!("/{package}.{service}/{call}"),
                    fact["path"].as_str().expect("a path")
                );
                assert_eq!(
                    relative(package, method.input().full_name()),
                    fact["request"].as_str().expect("a message")
                );
                assert_eq!(
                    relative(package, method.output().full_name()),
                    fact["response"].as_str().expect("a message")
                );
                assert_eq!(
                    method.is_client_streaming(),
                    fact["client_streaming"] == Value::Bool(true),
                    "{call}"
                );
                assert_eq!(
                    method.is_server_streaming(),
                    fact["server_streaming"] == Value::Bool(true),
                    "{call}"
                );
                calls += 1;
            }
        }
    }
    assert_eq!(calls, 33, "calls compared");
}
