//! What has been typed so far in the line that a shell completes.

use std::any::Any;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, CommandFactory as _};

use crate::cli::args::{AdminArgs, Cli, ClientArgs, UrlArgs};
use crate::client::{Client, Target};

/// The arguments before the word that is being completed. Mistakes in them are ignored.
pub(super) struct TypedLine {
    /// Of the last command in the line.
    matches: ArgMatches,
}

impl TypedLine {
    /// The line that the shell has passed behind `--`.
    pub(super) fn from_arguments() -> Option<Self> {
        let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
        let words: Vec<OsString> = words.collect();
        let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|text| text.parse().ok());
        let index = index.unwrap_or_else(|| words.len().saturating_sub(1));
        Self::parse(words.into_iter().take(index))
    }

    fn parse(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut matches = ignore_mistakes(Cli::command()).try_get_matches_from(words).ok()?;
        while let Some((_, inner)) = matches.remove_subcommand() {
            matches = inner;
        }
        Some(Self { matches })
    }

    fn get<T: Any + Clone + Send + Sync + 'static>(&self, argument: &str) -> Option<T> {
        self.matches.try_get_one::<T>(argument).ok().flatten().cloned()
    }

    pub(super) fn argument_text(&self, argument: &str) -> Option<String> {
        self.get(argument)
    }

    /// A client for the agent in the line or the environment, as the command itself would have: of its HTTP listener if the
    /// command uses that, otherwise of its admin socket.
    pub(super) fn build_client(&self) -> Option<Client> {
        let url = self.get::<Target>("url").map(|url| ClientArgs {
            at: UrlArgs { url, ca: self.get::<PathBuf>("ca") },
            token_file: self.get::<PathBuf>("token_file"),
        });
        match url {
            Some(args) => args.build_client().ok(),
            None => Some(AdminArgs { admin_socket: self.get::<PathBuf>("admin_socket") }.build_client()),
        }
    }
}

/// The command and all commands below it, which parse as much as they can.
fn ignore_mistakes(command: clap::Command) -> clap::Command {
    command.ignore_errors(true).mut_subcommands(ignore_mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> TypedLine {
        TypedLine::parse(line.split(' ').map(OsString::from)).unwrap()
    }

    #[test]
    fn arguments_are_found_in_a_line_that_is_not_finished() {
        let line = typed("tallyport explain web.1 --url http://127.0.0.1:1 --no-such-option");
        assert_eq!(line.argument_text("task_id").as_deref(), Some("web.1"));
        assert_eq!(line.get::<Target>("url"), Some(Target::Http("127.0.0.1:1".to_owned())));
        let line = typed("tallyport metrics details -n shop web-0");
        assert_eq!(line.argument_text("namespace").as_deref(), Some("shop"));
        assert_eq!(typed("tallyport tail").argument_text("task_id"), None);
        assert_eq!(
            typed("tallyport metrics").argument_text("task_id"),
            None,
            "the line needs no complete command"
        );
    }

    #[test]
    fn each_command_asks_the_agent_that_it_would_read_from() {
        let target = |line: &str| typed(line).build_client().unwrap().target().to_string();
        let line = "tallyport explain --url http://127.0.0.1:1 --admin-socket /x.sock";
        assert_eq!(target(line), "http://127.0.0.1:1");
        assert_eq!(target("tallyport tail --admin-socket /x.sock"), "/x.sock");
    }
}
