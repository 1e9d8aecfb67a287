//! Mistakes in the use of a command: one sentence, and a hint that says how it is done.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use super::args::Cli;
use super::failure::Failure;

/// What can be read from an error of the parser.
struct UsageMistake<'e> {
    error: &'e clap::Error,
    /// The command and its subcommands, as far as the arguments name them.
    command: Command,
    arguments: &'e [OsString],
}

/// Describes an error of the parser. `None` for help and the version, which the parser also returns as errors.
pub(super) fn describe_mistake(error: &clap::Error, arguments: &[OsString]) -> Option<Failure> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::Io
    ) {
        return None;
    }
    let mistake = UsageMistake { error, command: find_command(arguments), arguments };
    let failure = Failure::usage_error(mistake.describe());
    Some(failure.with_hint(mistake.suggest()))
}

/// The command that the first words name.
pub(super) fn find_command(arguments: &[OsString]) -> Command {
    let mut command = Cli::command();
    // Names commands as they are typed, such as `tallyport metrics details`.
    command.build();
    for word in arguments.iter().skip(1) {
        match word.to_str().and_then(|word| command.find_subcommand(word)) {
            Some(inner) => command = inner.clone(),
            None => break,
        }
    }
    command
}

impl UsageMistake<'_> {
    fn texts(&self, kind: ContextKind) -> Vec<&str> {
        match self.error.get(kind) {
            Some(ContextValue::String(text)) => vec![text.as_str()],
            Some(ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn text(&self, kind: ContextKind) -> &str {
        self.texts(kind).first().copied().unwrap_or_default()
    }

    /// The command as it is typed.
    fn command_name(&self) -> &str {
        self.command.get_bin_name().unwrap_or("tallyport")
    }

    /// The argument as it is typed. A value that came from a variable is named by the variable.
    fn argument_name(&self) -> &str {
        let name = trim_argument(self.text(ContextKind::InvalidArg));
        let is_given = self.arguments.iter().any(|word| {
            let word = word.to_string_lossy();
            word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
        });
        let mut arguments = self.command.get_arguments();
        let defined = arguments.find(|argument| argument.get_long() == name.strip_prefix("--"));
        match defined.and_then(clap::Arg::get_env).and_then(std::ffi::OsStr::to_str) {
            Some(variable) if !is_given && std::env::var_os(variable).is_some() => variable,
            _ => name,
        }
    }

    fn describe(&self) -> String {
        let (command, argument) = (self.command_name(), self.argument_name());
        let value = self.text(ContextKind::InvalidValue);
        match self.error.kind() {
            ErrorKind::MissingRequiredArgument => {
                let missing = self.texts(ContextKind::InvalidArg).into_iter().map(name_with_value);
                format!("{command} needs {}", missing.collect::<Vec<_>>().join(" and "))
            }
            ErrorKind::UnknownArgument => match self.text(ContextKind::InvalidArg) {
                option if option.starts_with('-') => format!("{command} has no option {option}"),
                word => format!("{command} takes no further argument, such as {word:?}"),
            },
            ErrorKind::InvalidSubcommand => {
                format!("{command} has no command {:?}", self.text(ContextKind::InvalidSubcommand))
            }
            ErrorKind::MissingSubcommand => format!("{command} needs one of its commands"),
            ErrorKind::ArgumentConflict => match trim_argument(self.text(ContextKind::PriorArg)) {
                "" => format!("{argument} cannot be used with the other options"),
                prior if prior == argument => format!("{argument} can be given only once"),
                prior => format!("{argument} cannot be used together with {prior}"),
            },
            ErrorKind::InvalidValue if value.is_empty() => format!("{argument} needs a value"),
            ErrorKind::InvalidValue => format!("{argument} cannot be {value:?}"),
            ErrorKind::ValueValidation => {
                let why = std::error::Error::source(self.error).map(ToString::to_string);
                format!("{argument} {value:?}: {}", why.unwrap_or_else(|| "it cannot be read".to_owned()))
            }
            ErrorKind::InvalidUtf8 => format!("an argument of {command} is not UTF-8"),
            _ => self.first_line(),
        }
    }

    /// The parser's own sentence, for mistakes that no definition here makes possible.
    fn first_line(&self) -> String {
        let text = self.error.render().to_string();
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("error: ").unwrap_or(line).to_owned()
    }

    fn suggest(&self) -> String {
        if let Some(hint) = self.suggest_usual_way() {
            return hint;
        }
        let likely =
            [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
                .into_iter()
                .flat_map(|kind| self.texts(kind))
                .next();
        let possible = self.texts(ContextKind::ValidValue);
        match (likely, possible.is_empty()) {
            (Some(likely), true) => format!("did you mean {}?", trim_argument(likely)),
            (Some(likely), false) => {
                format!("did you mean {likely}? possible values: {}", possible.join(", "))
            }
            (None, false) => format!("possible values: {}", possible.join(", ")),
            (None, true) => format!("`{} --help` lists what it takes, with examples", self.command_name()),
        }
    }

    /// Hints for what people type who know other programs.
    fn suggest_usual_way(&self) -> Option<String> {
        let (command, argument) = (self.command_name(), self.text(ContextKind::InvalidArg));
        let is_text = !argument.starts_with('-');
        let hint = match (self.error.kind(), command) {
            (ErrorKind::MissingRequiredArgument, _)
                if self.texts(ContextKind::InvalidArg).contains(&"<TASK_ID>") =>
            {
                format!("`tallyport tasks` lists the tasks; `{command} --help` has examples")
            }
            (ErrorKind::MissingRequiredArgument, _)
                if self.texts(ContextKind::InvalidArg).contains(&"<CONTAINER_ID>") =>
            {
                format!("`tallyport containers list` lists the containers; `{command} --help` has examples")
            }
            (ErrorKind::MissingRequiredArgument, _)
                if self.texts(ContextKind::InvalidArg).contains(&"--namespace <NAMESPACE>") =>
            {
                let has = self.command.get_arguments().any(|it| it.get_long() == Some("container"));
                if !has {
                    return None;
                }
                "-c names a container of a pod; --container selects one of any task".to_owned()
            }
            (ErrorKind::UnknownArgument, "tallyport tasks") if is_text => {
                format!(
                    "`tallyport tasks --task {argument}` selects tasks, `tallyport metrics summary {argument}` shows one"
                )
            }
            (ErrorKind::UnknownArgument, "tallyport metrics summary") if is_text => {
                format!("`tallyport metrics details TASK {argument}` shows one metric")
            }
            (ErrorKind::UnknownArgument, "tallyport containers list") if is_text => {
                format!(
                    "`tallyport containers list --task {argument}` selects them, `tallyport containers show` shows one"
                )
            }
            (ErrorKind::InvalidSubcommand, "tallyport")
                if self.text(ContextKind::InvalidSubcommand) == "stop" =>
            {
                "`tallyport agent --stop` ends an agent, `tallyport containers release` a container's socket"
                    .to_owned()
            }
            (ErrorKind::UnknownArgument, "tallyport agent") if argument == "stop" => {
                "did you mean --stop?".to_owned()
            }
            (ErrorKind::UnknownArgument, "tallyport tail") if matches!(argument, "-f" | "--follow") => {
                "it always follows; Ctrl-C or --lines N ends it".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }
}

/// An argument without the names of its values: `--since` of `--since <TIME>`, and `TASK_ID` of `<TASK_ID>`.
fn trim_argument(text: &str) -> &str {
    let text = text.trim_matches(['<', '>', '[', ']', '.']);
    text.split(['[', ' ', '=']).next().unwrap_or(text)
}

/// An argument with the name of its value, without brackets.
fn name_with_value(text: &str) -> String {
    text.replace(['<', '>', '[', ']'], "").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// What is said of these arguments.
    fn said(line: &str) -> String {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Cli::try_parse_from(&arguments).unwrap_err();
        let failure = describe_mistake(&error, &arguments).unwrap();
        failure.to_text()
    }

    #[test]
    fn a_mistake_is_one_sentence_with_a_hint() {
        for (line, text) in [
            (
                "tallyport metrics details",
                "tallyport metrics details needs TASK_ID\n`tallyport tasks` lists the tasks; `tallyport metrics details --help` has examples",
            ),
            (
                "tallyport tasks --limit 0",
                "--limit \"0\": write a whole number of at least 1\n`tallyport tasks --help` lists what it takes, with examples",
            ),
            (
                "tallyport tail web.1 --lines x",
                "--lines \"x\": write a whole number of at least 1\n`tallyport tail --help` lists what it takes, with examples",
            ),
            (
                "tallyport metrics details web.1 --since 5",
                "--since \"5\": it needs a unit, such as 5s or 5m; a moment is written like 2026-01-01T12:00:00Z\n`tallyport metrics details --help` lists what it takes, with examples",
            ),
            ("tallyport tasks --labels a=b", "tallyport tasks has no option --labels\ndid you mean --label?"),
            ("tallyport taks", "tallyport has no command \"taks\"\ndid you mean tasks?"),
            (
                "tallyport metrics sumary web.1",
                "tallyport metrics has no command \"sumary\"\ndid you mean summary?",
            ),
            (
                "tallyport tasks --state",
                "--state needs a value\npossible values: reserved, listening, draining, gone, mute, lost",
            ),
            (
                "tallyport tasks --state asleep",
                "--state cannot be \"asleep\"\npossible values: reserved, listening, draining, gone, mute, lost",
            ),
            (
                "tallyport tasks --state listen",
                "--state cannot be \"listen\"\ndid you mean listening? possible values: reserved, listening, draining, gone, mute, lost",
            ),
            (
                "tallyport tasks --json -o csv",
                "--json cannot be used together with --output\n`tallyport tasks --help` lists what it takes, with examples",
            ),
            (
                "tallyport tasks --limit 1 --limit 2",
                "--limit can be given only once\n`tallyport tasks --help` lists what it takes, with examples",
            ),
            (
                "tallyport tasks web.1",
                "tallyport tasks takes no further argument, such as \"web.1\"\n`tallyport tasks --task web.1` selects tasks, `tallyport metrics summary web.1` shows one",
            ),
            (
                "tallyport tail web.1 -f",
                "tallyport tail has no option -f\nit always follows; Ctrl-C or --lines N ends it",
            ),
            (
                "tallyport tasks --url x",
                "--url \"x\": write http://HOST:PORT, https://HOST:PORT or unix:PATH\n`tallyport tasks --help` lists what it takes, with examples",
            ),
            (
                "tallyport stop",
                "tallyport has no command \"stop\"\n`tallyport agent --stop` ends an agent, `tallyport containers release` a container's socket",
            ),
            (
                "tallyport agent stop",
                "tallyport agent takes no further argument, such as \"stop\"\ndid you mean --stop?",
            ),
            (
                "tallyport metrics details web.1 -c run-7",
                "tallyport metrics details needs --namespace NAMESPACE\n-c names a container of a pod; --container selects one of any task",
            ),
            (
                "tallyport containers show",
                "tallyport containers show needs CONTAINER_ID\n`tallyport containers list` lists the containers; `tallyport containers show --help` has examples",
            ),
        ] {
            assert_eq!(said(line), text, "{line}");
        }
    }

    #[test]
    fn help_and_the_version_are_no_mistakes() {
        for line in [
            "tallyport --help",
            "tallyport --version",
            "tallyport metrics",
            "tallyport help tasks",
            "tallyport",
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let error = Cli::try_parse_from(&arguments).unwrap_err();
            assert!(describe_mistake(&error, &arguments).is_none(), "{line}");
        }
    }
}
