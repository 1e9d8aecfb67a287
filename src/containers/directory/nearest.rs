//! Suggests existing names for a mistyped one.

use std::borrow::Borrow;

/// The longest name that is compared, in bytes. Time and memory of a comparison grow with the product of both lengths, and a
/// reader can send a name of many kilobytes.
const LONGEST: usize = 128;
/// How many names are suggested at most.
const SUGGESTED: usize = 5;
/// Names are suggested whose likeness is more than this; identical names have 1, those without a common character 0.
const ALIKE: f64 = 0.4;

/// At most five of the names, most similar first: those that contain the mistyped one, and those that few edits lead to.
/// Empty where the mistyped name is longer than 128 bytes; longer names are left out.
pub fn suggest_names<N: Borrow<str>>(mistyped: &str, names: impl IntoIterator<Item = N>) -> Vec<String> {
    if mistyped.len() > LONGEST {
        return Vec::new();
    }
    let mut alike: Vec<(f64, N)> = names
        .into_iter()
        .filter_map(|name| Some((name_similarity(mistyped, name.borrow())?, name)))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .collect();
    alike.sort_by(|(a, first), (b, second)| b.total_cmp(a).then_with(|| first.borrow().cmp(second.borrow())));
    alike.into_iter().take(SUGGESTED).map(|(_, name)| name.borrow().to_owned()).collect()
}

/// How similar a name is: the share of characters that need no edit, and half more where it contains the mistyped one. None
/// where it is too long to be compared.
fn name_similarity(mistyped: &str, name: &str) -> Option<f64> {
    if name.len() > LONGEST {
        return None;
    }
    let contained = if !mistyped.is_empty() && name.contains(mistyped) { 0.5 } else { 0.0 };
    Some(contained + strsim::normalized_damerau_levenshtein(name, mistyped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_gets_the_most_similar_ones() {
        let names = ["web.1", "web.2", "database", "/prod/web/api"];
        assert_eq!(suggest_names("wbe.1", names)[0], "web.1");
        assert_eq!(suggest_names("web", names), ["web.1", "web.2", "/prod/web/api"]);
        assert!(suggest_names("zzzzzz", names).is_empty());
    }

    #[test]
    fn names_longer_than_the_bound_are_neither_compared_nor_suggested() {
        let of_length = |n: usize| "x".repeat(n);
        assert_eq!(suggest_names(&of_length(LONGEST), [of_length(LONGEST)]).len(), 1);
        assert!(suggest_names(&of_length(LONGEST + 1), [of_length(LONGEST)]).is_empty());
        assert!(suggest_names("x", [of_length(LONGEST + 1)]).is_empty());
    }
}
