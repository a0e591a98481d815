//! Turns derived schemas into ones that read and behave like those of Kubernetes.
//!
//! Owns: what the derive cannot say: types of lists, meanings of words, formats, bounds of foreign types. Must not: change which objects
//! of ours are valid, beyond refusing what no client of ours can read.

mod meanings;

use serde_json::{Map, Value, json};

use self::meanings::Meanings;

/// Polishes the schemas of a definition.
pub(super) fn polish(definition: &mut Value) {
    let meanings = Meanings::collect();
    let versions = definition.pointer_mut("/spec/versions");
    for version in versions.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            describe_spec(schema);
            visit(schema, &meanings);
        }
    }
}

/// Top and `spec` are described by the same words, for the derive has one place for both.
fn describe_spec(schema: &mut Value) {
    if let Some(Value::String(text)) = schema.pointer_mut("/properties/spec/description") {
        *text = "What is asked for.".to_owned();
    }
}

fn visit(schema: &mut Value, meanings: &Meanings) {
    let Value::Object(fields) = schema else {
        return;
    };
    // Null is then the same as absent, to rules as to clients.
    fields.remove("nullable");
    whole_bounds(fields);
    known_format(fields);
    explain_words(fields, meanings);
    join_lines(fields);
    if fields.contains_key("x-kubernetes-int-or-string") {
        quantity(fields);
    }
    if is_condition(fields.get("items")) {
        conditions(fields);
    }
    if is_requirement(fields.get("items")) {
        requirements(fields);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            visit(inner, meanings);
        }
    }
    let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .into_iter()
        .flat_map(Map::values_mut)
        .for_each(|property| visit(property, meanings));
}

/// What every number that is kept as JSON can be without loss; as bytes it is 8 PiB. An API server would take 1e30 for an integer, and
/// one object with such a number makes a watch fail for all.
const LARGEST: i64 = 1 << 53;

/// Every integer has bounds, written without a fraction. Nothing that is counted here is below zero.
fn whole_bounds(fields: &mut Map<String, Value>) {
    if fields.get("type").and_then(Value::as_str) != Some("integer") {
        return;
    }
    fields.entry("minimum").or_insert(json!(0));
    fields.entry("maximum").or_insert(json!(LARGEST));
    for name in ["minimum", "maximum"] {
        let whole = fields
            .get(name)
            .and_then(Value::as_f64)
            .map(|bound| format!("{bound:.0}"));
        if let Some(whole) = whole.and_then(|digits| digits.parse::<i64>().ok()) {
            fields.insert(name.to_owned(), json!(whole));
        }
    }
}

/// OpenAPI knows two integer formats; an API server warns about others.
fn known_format(fields: &mut Map<String, Value>) {
    let known = match fields.get("format").and_then(Value::as_str) {
        Some("uint8" | "int8" | "uint16" | "int16") => "int32",
        Some("uint32" | "uint64" | "uint") => "int64",
        _ => return,
    };
    fields.insert("format".to_owned(), json!(known));
}

/// A closed set of words is explained where it is used.
fn explain_words(fields: &mut Map<String, Value>, meanings: &Meanings) {
    let Some(Value::Array(words)) = fields.get_mut("enum") else {
        return;
    };
    words.retain(Value::is_string);
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let Some(meanings) = meanings.of(&words) else {
        return;
    };
    let description = fields.entry("description").or_insert_with(|| json!(""));
    if let Value::String(text) = description {
        join(text);
        for (word, meaning) in meanings {
            text.push_str("\n- ");
            text.push_str(word);
            text.push_str(": ");
            text.push_str(meaning);
        }
    }
}

/// Line breaks of comments in the code are none of the text; those of a list of words are.
fn join_lines(fields: &mut Map<String, Value>) {
    if fields.contains_key("enum") {
        return;
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        join(text);
    }
}

fn join(text: &mut String) {
    *text = text.replace('\n', " ");
}

/// The pattern of quantities in Kubernetes' own definitions. The bound on its length keeps rules on it cheap.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

fn quantity(fields: &mut Map<String, Value>) {
    fields.insert(
        "anyOf".to_owned(),
        json!([{"type": "integer"}, {"type": "string"}]),
    );
    fields.insert("pattern".to_owned(), json!(QUANTITY));
    fields.insert("maxLength".to_owned(), json!(32));
}

fn has_fields(schema: Option<&Value>, names: &[&str]) -> bool {
    let properties = schema.and_then(|schema| schema.pointer("/properties"));
    properties.is_some_and(|properties| names.iter().all(|name| properties.get(name).is_some()))
}

fn is_condition(schema: Option<&Value>) -> bool {
    has_fields(schema, &["lastTransitionTime", "reason", "status", "type"])
}

/// A list of conditions is one entry a type, so that two clients can apply theirs; the bounds are those of `metav1.Condition`.
fn conditions(fields: &mut Map<String, Value>) {
    fields.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    fields.insert("x-kubernetes-list-map-keys".to_owned(), json!(["type"]));
    fields.insert("maxItems".to_owned(), json!(16));
    fields.insert("items".to_owned(), condition());
}

fn condition() -> Value {
    json!({
        "description": "One thing that holds, does not hold, or is not known yet.",
        "type": "object",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "type": {
                "description": "What it is about.",
                "type": "string",
                "maxLength": 316,
                "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            },
            "status": {
                "description": "Whether it holds. Unknown: it is being worked on.",
                "type": "string",
                "enum": ["True", "False", "Unknown"],
            },
            "reason": {
                "description": "Why, in one word for programs. The words are documented in manifests/REASONS.md of the project.",
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            "message": {
                "description": "Why, in a sentence for people.",
                "type": "string",
                "maxLength": 32768,
            },
            "lastTransitionTime": {
                "description": "Since when the status is what it is.",
                "type": "string",
                "format": "date-time",
            },
            "observedGeneration": {
                "description": "The generation of the spec that it is about.",
                "type": "integer",
                "format": "int64",
                "minimum": 0,
                "maximum": LARGEST,
            },
        },
    })
}

fn is_requirement(schema: Option<&Value>) -> bool {
    has_fields(schema, &["key", "operator"])
}

/// Requirements of a label selector: a selector that an API server admits is one that can be evaluated.
fn requirements(fields: &mut Map<String, Value>) {
    fields.insert("maxItems".to_owned(), json!(64));
    if let Some(Value::Object(operator)) = fields
        .get_mut("items")
        .and_then(|item| item.pointer_mut("/properties/operator"))
    {
        operator.insert(
            "enum".to_owned(),
            json!(["In", "NotIn", "Exists", "DoesNotExist"]),
        );
    }
}
