//! The path of the web page.

use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter as _, Reply as _};

use super::optional_header;
use crate::api::page;

/// The page, on both listeners.
pub(super) fn page_routes() -> BoxedFilter<(Response,)> {
    let page = at!(get).and(optional_header("accept-encoding")).and(optional_header("if-none-match")).map(
        |encoding: Option<String>, known: Option<String>| {
            page::get_page(encoding.as_deref(), known.as_deref()).into_response()
        },
    );
    page.boxed()
}
