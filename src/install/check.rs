//! Checks that the programs that containers will need exist, and that an engine accepts its configuration file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Engine, Error};

/// Runs the wrapper with `--version`, which it passes on to the runtime. Returns a line that tells the user which
/// runtime it starts.
pub(super) fn probe_wrapper(wrapper: &Path, runtime: Option<&Path>) -> Result<String, Error> {
    for path in [Some(wrapper), runtime].into_iter().flatten() {
        ensure_executable(path)?;
    }
    let mut command = Command::new(wrapper);
    command.arg("--version").stdin(Stdio::null());
    if let Some(runtime) = runtime {
        command.env("TALLYPORT_OCI_RUNTIME", runtime);
    }
    let wrong = |why: String| Error::Program { path: wrapper.to_owned(), why };
    let output = command.output().map_err(|error| wrong(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(wrong(format!("it starts no runtime: {}", said.trim())));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(format!("{} starts {}", wrapper.display(), said.lines().next().unwrap_or_default()))
}

fn ensure_executable(path: &Path) -> Result<(), Error> {
    let wrong = |why: String| Err(Error::Program { path: path.to_owned(), why });
    match std::fs::metadata(path) {
        Err(error) => wrong(error.to_string()),
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
            wrong("it is not a program".to_owned())
        }
        Ok(_) if !path.is_absolute() => {
            wrong("it is not an absolute path, and engines run in another directory".to_owned())
        }
        Ok(_) => Ok(()),
    }
}

/// The result of having an engine check its file.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum EngineVerdict {
    /// The engine accepts the file.
    Accepted(&'static str),
    /// The engine is not installed or cannot check files; the reason.
    Unasked(String),
    /// The engine rejects the file with this message.
    Refused(&'static str, String),
}

/// Has the engine check a file and, if it shows what it has read, looks there for `written`.
pub(super) fn validate_with_engine(engine: Engine, path: &Path, written: Option<&str>) -> EngineVerdict {
    match engine {
        Engine::Docker
            if capture_output("dockerd", "--help").is_some_and(|help| !help.contains("--validate")) =>
        {
            EngineVerdict::Unasked("this dockerd cannot check its file (23.0 and later can)".to_owned())
        }
        Engine::Docker => run_validation("dockerd", &["--validate", "--config-file"], path, &[], None),
        Engine::Containerd => run_validation("containerd", &["--config"], path, &["config", "dump"], written),
        Engine::Podman | Engine::Crio => {
            EngineVerdict::Unasked("it was only parsed as TOML; podman and CRI-O cannot check it".to_owned())
        }
    }
}

fn run_validation(
    program: &'static str,
    before: &[&str],
    path: &Path,
    after: &[&str],
    written: Option<&str>,
) -> EngineVerdict {
    let output = Command::new(program).args(before).arg(path).args(after).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        return EngineVerdict::Unasked(format!("{program} is not installed, so it has not checked the file"));
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return EngineVerdict::Refused(program, err.trim().to_owned());
    }
    match written.filter(|written| !out.contains(written)) {
        Some(written) => EngineVerdict::Refused(
            program,
            format!("it does not find {written} in the file; does a file listed in `imports` override it?"),
        ),
        None => EngineVerdict::Accepted(program),
    }
}

fn capture_output(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
