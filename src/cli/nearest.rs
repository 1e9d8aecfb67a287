//! Names like one that does not exist.

/// How many are listed.
const SHOWN: usize = 5;
/// The least likeness of a name, between 0 and 1, that is worth listing.
const LEAST: f64 = 0.4;

/// The names that are most like `wanted`, the nearest first. Those that contain it come before all others.
pub(super) fn list_nearest_names<'n>(names: impl IntoIterator<Item = &'n str>, wanted: &str) -> Vec<&'n str> {
    let bare = wanted.replace(['*', '?'], "");
    let likeness = |name: &str| {
        let part = if name.contains(&*bare) { 1.0 } else { 0.0 };
        part + strsim::normalized_damerau_levenshtein(name, &bare)
    };
    let mut found: Vec<(f64, &str)> = names.into_iter().map(|name| (likeness(name), name)).collect();
    found.retain(|(likeness, _)| *likeness > LEAST);
    found.sort_by(|(a, first), (b, second)| b.total_cmp(a).then(first.cmp(second)));
    found.dedup_by(|(_, a), (_, b)| a == b);
    found.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_contain_it_come_before_those_that_are_like_it() {
        let names = ["shop.latency", "latensy", "latensy", "hits"];
        assert_eq!(list_nearest_names(names, "latency"), ["shop.latency", "latensy"]);
        assert_eq!(list_nearest_names(names, "*latency*"), ["shop.latency", "latensy"]);
        assert!(list_nearest_names(names, "zzz").is_empty());
    }
}
