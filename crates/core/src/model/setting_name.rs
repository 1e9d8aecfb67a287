//! How advice names a setting.
//!
//! What tells a reader to change a setting also says where it is set. Most places that give advice do not know the files of the
//! agent, so they name the command that does ([`setting_name!`](crate::setting_name)). Who knows more puts the place itself
//! there ([`name_places`]).

/// A setting in advice, as a literal: its key, and the command that shows where its value comes from.
#[macro_export]
macro_rules! setting_name {
    ($key:literal) => {
        concat!($key, " (`tallyport config show ", $key, " --running` shows where it is set)")
    };
}

pub use setting_name;

const BEFORE: &str = " (`tallyport config show ";
const AFTER: &str = " --running` shows where it is set)";

/// Advice with the place of each setting in it instead of the command, where `place` has one for its key, such as `in agent.toml`.
#[must_use]
pub fn name_places(advice: &str, place: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = advice.split(BEFORE);
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = part.split_once(AFTER).and_then(|(key, rest)| Some((place(key)?, rest)));
        match known {
            Some((place, rest)) => named.extend([" ", &place, rest]),
            None => named.extend([BEFORE, part]),
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_command_or_the_place() {
        let advice = concat!("raise ", setting_name!("limits.series"), " or ", setting_name!("windows.keep"));
        assert_eq!(
            advice,
            "raise limits.series (`tallyport config show limits.series --running` shows where it is set) or windows.keep \
             (`tallyport config show windows.keep --running` shows where it is set)"
        );
        assert_eq!(name_places(advice, |_| None), advice);
        let file = |key: &str| (key == "limits.series").then(|| "in a.toml".to_owned());
        assert_eq!(
            name_places(advice, file),
            "raise limits.series in a.toml or windows.keep (`tallyport config show windows.keep --running` shows where \
             it is set)"
        );
        assert_eq!(name_places("send less", |_| Some(String::new())), "send less");
    }
}
