use std::path::{Path, PathBuf};

use super::*;
use crate::kube::api::conditions::Reason;

/// Every schema below `schema`, with its path.
fn schemas<'a>(path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    found.push((path.to_owned(), schema));
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        schemas(&format!("{path}.{name}"), child, found);
    }
    for (name, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[name].is_object() {
            schemas(&format!("{path}{suffix}"), &schema[name], found);
        }
    }
}

fn every_schema(definitions: &[Value]) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for definition in definitions {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schemas(kind, schema, &mut found);
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

#[test]
fn the_manifests_are_what_the_command_prints() {
    let path = manifests().join("base/crds/snaphaul.dev.yaml");
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == yaml().unwrap(),
        "{} is not what the types say: run\n  cargo run --bin snaphaul -- crds > manifests/base/crds/snaphaul.dev.yaml",
        path.display()
    );
}

#[test]
fn the_yaml_says_the_same_as_the_json() {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml().unwrap()).unwrap();
    assert_eq!(documents, all().unwrap());
}

#[test]
fn every_field_is_described_in_our_words() {
    let definitions = all().unwrap();
    for (path, schema) in every_schema(&definitions) {
        // Items of lists and values of maps are explained with the list or map.
        if path.ends_with("[]") || path.ends_with("{}") {
            continue;
        }
        let text = schema["description"].as_str().unwrap_or_default();
        assert!(text.trim().ends_with('.'), "{path}: {text:?}");
        assert!(!text.contains("Auto-generated"), "{path}: {text:?}");
    }
}

#[test]
fn words_are_explained_where_they_are_used() {
    let definitions = all().unwrap();
    let explained = |path: &str| {
        let schemas = every_schema(&definitions);
        let (_, schema) = schemas.into_iter().find(|(name, _)| name == path).unwrap();
        schema["description"].as_str().unwrap().to_owned()
    };
    let text = explained("PodVolumeBackup.spec.deletionPolicy");
    assert!(
        text.contains("\n- Retain: Nothing: the point stays restorable."),
        "{text}"
    );
    for (path, schema) in every_schema(&definitions) {
        // The two of Kubernetes that need no explanation of ours.
        if path.ends_with(".conditions[].status") || path.ends_with(".operator") {
            continue;
        }
        for word in schema["enum"].as_array().into_iter().flatten() {
            let word = format!("\n- {}: ", word.as_str().unwrap());
            assert!(explained(&path).contains(&word), "{path} leaves out{word}");
        }
    }
}

#[test]
fn nothing_is_nullable_and_every_format_is_known() {
    let definitions = all().unwrap();
    for (path, schema) in every_schema(&definitions) {
        assert!(schema.get("nullable").is_none(), "{path}");
        if let Some(format) = schema["format"].as_str() {
            assert!(
                ["int32", "int64", "date-time"].contains(&format),
                "{path}: {format}"
            );
        }
        for bound in ["minimum", "maximum"] {
            assert!(!schema[bound].is_f64(), "{path}: {}", schema[bound]);
        }
    }
}

#[test]
fn whole_numbers_have_bounds_that_fit_their_type() {
    let definitions = all().unwrap();
    for (path, schema) in every_schema(&definitions) {
        if schema["type"] == "integer" {
            assert!(
                schema["minimum"].is_i64() && schema["maximum"].is_i64(),
                "{path}: {schema}"
            );
        }
    }
}

#[test]
fn conditions_are_one_entry_a_type() {
    let definitions = all().unwrap();
    let lists: Vec<_> = every_schema(&definitions)
        .into_iter()
        .filter(|(path, _)| path.ends_with(".conditions"))
        .collect();
    assert_eq!(lists.len(), 3);
    for (path, schema) in lists {
        assert_eq!(schema["x-kubernetes-list-type"], "map", "{path}");
        assert_eq!(
            schema["x-kubernetes-list-map-keys"],
            serde_json::json!(["type"]),
            "{path}"
        );
    }
}

/// Run with `SNAPHAUL_BLESS=1` to rewrite the page after a change on purpose.
#[test]
fn the_page_of_reasons_is_that_of_the_code() {
    let path = manifests().join("REASONS.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let begin = page.find("| Reason | Meaning |").unwrap();
    let mut table = "| Reason | Meaning |\n| --- | --- |\n".to_owned();
    for reason in Reason::ALL {
        table.push_str(&format!(
            "| `{}` | {} |\n",
            reason.as_str(),
            reason.meaning().trim()
        ));
    }
    let end = page[begin..]
        .find("\n\n")
        .map_or(page.len(), |length| begin + length + 1);
    if std::env::var_os("SNAPHAUL_BLESS").is_some() {
        page.replace_range(begin..end, &table);
        std::fs::write(&path, &page).unwrap();
        return;
    }
    assert_eq!(&page[begin..end], table, "{} is stale", path.display());
}
