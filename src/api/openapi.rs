//! `GET /v1/openapi.json`: the document of the routes, without those of products that are not built in.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::products::Product;

/// The document of the complete API.
const COMPLETE: &str = include_str!("../../proto/openapi.json");

static SERVED: LazyLock<Cow<'static, str>> = LazyLock::new(|| {
    let is_complete = Product::list_missing().next().is_none();
    let reduced = if is_complete { None } else { without_missing_routes(COMPLETE, Product::is_built_in) };
    reduced.map_or(Cow::Borrowed(COMPLETE), Cow::Owned)
});

/// The document that describes what this program serves.
pub(super) fn served_document() -> &'static str {
    &SERVED
}

/// The document without the paths of missing products; none if it is no JSON object.
fn without_missing_routes(document: &str, is_built_in: impl Fn(Product) -> bool) -> Option<String> {
    let mut document: Map<String, Value> = serde_json::from_str(document).ok()?;
    let paths = document.get_mut("paths")?.as_object_mut()?;
    paths.retain(|path, operations| product_of(path, operations).is_none_or(&is_built_in));
    serde_json::to_string_pretty(&document).ok()
}

/// The product that a path belongs to: `/` is the web page, and operations with the tag `dcos` are the DC/OS calls.
fn product_of(path: &str, operations: &Value) -> Option<Product> {
    let has_tag = |tag: &str| {
        let operations = operations.as_object().into_iter().flat_map(Map::values);
        let mut tags = operations.filter_map(|operation| operation.get("tags")?.as_array()).flatten();
        tags.any(|found| found == tag)
    };
    match path {
        "/" => Some(Product::Page),
        _ if has_tag("dcos") => Some(Product::Dcos),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(document: &str) -> Vec<String> {
        let document = serde_json::from_str::<Value>(document).unwrap();
        document["paths"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn routes_of_a_product_that_is_not_built_in_are_not_described() {
        let all = paths(COMPLETE);
        let rest = paths(&without_missing_routes(COMPLETE, |_| false).unwrap());
        let gone: Vec<_> = all.iter().filter(|path| !rest.contains(path)).map(String::as_str).collect();
        let expected = [
            "/",
            "/container",
            "/containers",
            "/container/{container_id}",
            "/v0/ping",
            "/v0/node",
            "/v0/containers",
            "/v0/containers/{container_id}",
            "/v0/containers/{container_id}/app",
            "/v0/containers/{container_id}/app/{metric}",
        ];
        assert_eq!(gone, expected);
        let without_page = without_missing_routes(COMPLETE, |product| product != Product::Page).unwrap();
        assert_eq!(paths(&without_page).len(), all.len() - 1);
    }

    #[test]
    fn a_complete_program_serves_the_document_as_it_is() {
        let is_complete = Product::list_missing().next().is_none();
        assert_eq!(served_document() == COMPLETE, is_complete);
    }
}
