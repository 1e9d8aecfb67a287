//! The methods of a path, for the `Allow` header of a 405 (RFC 9110 §15.5.6).
//!
//! They are taken from the OpenAPI document, which a test compares with the routes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::openapi::served_document;

#[derive(Deserialize)]
struct OpenApiDocument {
    paths: BTreeMap<String, BTreeMap<String, Operation>>,
}

#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "x-listener")]
    listeners: Vec<String>,
}

static DOCUMENT: LazyLock<OpenApiDocument> = LazyLock::new(|| {
    serde_json::from_str(served_document()).unwrap_or(OpenApiDocument { paths: BTreeMap::new() })
});

/// The methods that a path accepts on a listener (`http` or `admin`), as `Allow` lists them.
#[must_use]
pub fn allowed_methods(listener: &str, path: &str) -> String {
    let mut methods = Vec::new();
    for (_, operations) in DOCUMENT.paths.iter().filter(|(template, _)| matches_template(template, path)) {
        let here = |operation: &Operation| operation.listeners.iter().any(|named| named == listener);
        let served = operations.iter().filter(|(_, operation)| here(operation));
        // A fixed path and one with parameters can both match.
        methods.extend(served.map(|(method, _)| method.to_ascii_uppercase()));
    }
    if methods.iter().any(|method| method == "GET") {
        methods.push("HEAD".to_owned());
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

fn matches_template(template: &str, path: &str) -> bool {
    let (wanted, found) = (template.trim_end_matches('/').split('/'), path.trim_end_matches('/').split('/'));
    wanted.clone().count() == found.clone().count()
        && wanted.zip(found).all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::products::Product;

    #[test]
    fn a_path_takes_what_its_listener_serves() {
        assert_eq!(allowed_methods("http", "/v1/tasks/web.1"), "GET, HEAD");
        assert_eq!(allowed_methods("admin", "/v1/containers"), "GET, HEAD, POST");
        assert_eq!(allowed_methods("admin", "/v1/containers/c1/attach"), "POST");
        assert_eq!(allowed_methods("http", "/v1/containers"), "");
    }

    #[test]
    fn a_path_of_a_product_takes_something_where_the_product_is_built_in() {
        let expected = |product: Product, methods| if product.is_built_in() { methods } else { "" };
        let isolator = expected(Product::Dcos, "DELETE, GET, HEAD");
        assert_eq!(allowed_methods("admin", "/container/c1"), isolator);
        assert_eq!(allowed_methods("http", "/"), expected(Product::Page, "GET, HEAD"));
    }
}
