//! Registrations for shells in which those of `clap_complete` are not enough.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::engine;
use clap_complete::env::{self, EnvCompleter};

/// Bash. It splits words at `:` and `=`, which occur in URLs and in names, so the script puts them together again, and
/// gives bash only the part of a candidate that follows the last split.
#[derive(Debug)]
pub(super) struct Bash;

const BASH: &str = r#"
_tallyport_complete() {
    local line=$COMP_LINE word words=() current=0 i
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ $line != [[:blank:]]* && $line == "$word"* ]]; then
            words[${#words[@]}-1]+=$word
        else
            line=${line#"${line%%[![:blank:]]*}"}
            words+=("$word")
        fi
        line=${line#"$word"}
        if ((i == COMP_CWORD)); then
            current=$((${#words[@]} - 1))
        fi
    done
    words=("${words[@]:0:current+1}")
    words[current]=${words[current]#[\"\']}
    local before=${words[current]%"$2"}
    local IFS=$'\013'
    COMPREPLY=($(VARIABLE=bash _CLAP_IFS=$IFS _CLAP_COMPLETE_INDEX=$current COMPLETER -- "${words[@]}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o nosort -F _tallyport_complete BIN 2>/dev/null ||
    complete -o bashdefault -F _tallyport_complete BIN
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        program: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let script = BASH.trim_start();
        let script = script.replace("VARIABLE", variable).replace("COMPLETER", completer);
        out.write_all(script.replace("BIN", program).as_bytes())
    }

    /// Without options while nothing is typed and there is something else, so that bash can insert the only task.
    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let index =
            std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let separator = std::env::var("_CLAP_IFS").unwrap_or_else(|_| "\n".to_owned());
        let is_empty = words.get(index).is_none_or(|word| word.is_empty());
        let candidates = engine::complete(command, words, index, directory)?;
        let mut texts: Vec<String> =
            candidates.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect();
        if is_empty && texts.iter().any(|text| !text.starts_with('-')) {
            texts.retain(|text| !text.starts_with('-'));
        }
        out.write_all(texts.join(&separator).as_bytes())
    }
}

/// Zsh. A completion file is run as a function at the first completion, and must complete that as well.
#[derive(Debug)]
pub(super) struct Zsh;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        env::Zsh.name()
    }

    fn is(&self, name: &str) -> bool {
        env::Zsh.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        program: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        env::Zsh.write_registration(variable, name, program, completer, out)?;
        writeln!(out, "[[ $funcstack[1] == _{name} ]] && _clap_dynamic_completer_{name} \"$@\"\nreturn 0")
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        env::Zsh.write_complete(command, words, directory, out)
    }
}
