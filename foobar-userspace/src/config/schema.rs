//! The JSON schema of the language, for editors.

use serde_json::{Map, Value, json};

use super::grammar::{FILE_TABLE, Key, Kind, Named, Realm, SECRET, Table};

#[must_use]
pub fn schema() -> Value {
    let mut schema = table(&FILE_TABLE);
    if let Value::Object(fields) = &mut schema {
        fields.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        fields.insert("title".to_owned(), json!("foobar.toml"));
    }
    schema
}

fn table(table: &Table) -> Value {
    let properties: Map<_, _> = table
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let needed: Vec<_> = table
        .keys
        .iter()
        .filter(|key| key.needed)
        .map(|key| key.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": table.about,
        "properties": properties,
        "required": needed,
        "additionalProperties": false,
    });
    if !table.one_of.is_empty() {
        schema["oneOf"] = table
            .one_of
            .iter()
            .map(|key| json!({ "required": [key] }))
            .collect();
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    match key.later {
        Some(cure) => {
            schema["description"] = json!(format!("{} Not yet supported: {cure}.", key.about));
            schema["deprecated"] = json!(true);
        }
        None => schema["description"] = json!(key.about),
    }
    schema
}

fn kind(of: &Kind) -> Value {
    match of {
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Word(word) => json!({
            "type": "string",
            "title": word.what,
            "examples": word.examples,
        }),
        Kind::Whole { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Truth => json!({ "type": "boolean" }),
        Kind::Choice(choices) => {
            let words: Vec<_> = choices.iter().map(|choice| choice.word).collect();
            json!({ "enum": words })
        }
        Kind::Name(realm) => name(*realm),
        Kind::Peer => json!({
            "type": "string",
            "title": "an address, a prefix, `@set` or a host",
            "examples": ["198.51.100.0/24", "@admins", "web1"],
        }),
        Kind::Member => json!({
            "type": "string",
            "title": "a host and its port",
            "examples": ["web1:3306"],
        }),
        Kind::Ports => json!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 65_535 },
                { "type": "string", "examples": ["1024-65535"] },
            ],
        }),
        Kind::OneOrMany(one) => json!({
            "anyOf": [kind(one), { "type": "array", "items": kind(one) }],
        }),
        Kind::Many(one) => json!({ "type": "array", "items": kind(one) }),
        Kind::Table(of) => table(of),
        Kind::Named(of) => named(of),
        Kind::Quantity => json!({
            "anyOf": [
                { "type": "number", "minimum": 0 },
                { "type": "string", "examples": ["5%", "250ms", "20k/s"] },
            ],
        }),
        Kind::Secret => table(&SECRET),
    }
}

fn name(realm: Realm) -> Value {
    json!({ "type": "string", "title": format!("the name of a {}", realm.word()) })
}

fn named(named: &Named) -> Value {
    json!({
        "type": "object",
        "description": named.about,
        "additionalProperties": kind(&named.kind),
    })
}
