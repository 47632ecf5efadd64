//! From a route and its content to a request: `/v1/NAME` is the request of that name, the content its fields.

use serde_json::{Map, Value};

use super::api::{Refusal, Request};

/// `content` is what the body or the query said; nothing is the same as an empty object.
///
/// # Errors
/// [`Refusal::NotFound`] for no such route, [`Refusal::Conflict`] for other fields than it has.
pub fn read(name: &str, content: Option<Value>) -> Result<Request, Refusal> {
    let bare = match &content {
        None => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(_) => false,
    };
    if bare && let Ok(request) = serde_json::from_value(Value::from(name)) {
        return Ok(request);
    }
    let content = content.unwrap_or_else(|| Value::Object(Map::new()));
    let tagged = Value::Object(Map::from_iter([(name.to_owned(), content)]));
    serde_json::from_value(tagged).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("unknown variant") {
            Some(rest) => Refusal::NotFound {
                message: format!("no route{rest}"),
            },
            None => Refusal::Conflict {
                message: format!("/v1/{name}: {text}; GET /v1 tells the fields of each route"),
            },
        }
    })
}

/// The content that [`read`] makes `request` of again: its route and its fields.
#[must_use]
pub fn write(request: &Request) -> (String, Value) {
    match serde_json::to_value(request) {
        Ok(Value::Object(tagged)) => tagged
            .into_iter()
            .next()
            .unwrap_or_else(|| (String::new(), Value::Null)),
        Ok(Value::String(name)) => (name, Value::Object(Map::new())),
        _ => (String::new(), Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::admin::api::{Apply, Maps};

    #[test]
    fn every_request_has_a_route_and_finds_back() {
        for request in [
            Request::Status,
            Request::Snapshot {
                maps: Maps::Counted,
            },
            Request::Reload { apply: Apply::Now },
            Request::SetAdd {
                set: "jail".to_owned(),
                elements: vec!["192.0.2.1/32".parse().expect("a prefix")],
                timeout: Some(Duration::from_secs(60)),
            },
        ] {
            let (name, content) = write(&request);
            let again = read(&name, Some(content)).expect("the same request");
            assert_eq!(format!("{again:?}"), format!("{request:?}"));
        }
    }

    #[test]
    fn a_snapshot_leaves_the_maps_out_unless_asked() {
        let request = read("snapshot", None).expect("a request");
        assert!(matches!(
            request,
            Request::Snapshot {
                maps: Maps::LeftOut
            }
        ));
    }

    #[test]
    fn an_unknown_route_is_told_those_there_are() {
        let refusal = read("stats", None).expect_err("no such route");
        assert!(matches!(refusal, Refusal::NotFound { .. }));
        assert!(refusal.to_string().contains("snapshot"), "{refusal}");
    }

    #[test]
    fn wrong_fields_are_told_where_to_read_the_right_ones() {
        let refusal = read("set-flush", Some(json!({ "name": "jail" }))).expect_err("no set");
        assert!(
            refusal.to_string().contains("missing field `set`"),
            "{refusal}"
        );
        assert!(refusal.to_string().contains("GET /v1"), "{refusal}");
    }
}
