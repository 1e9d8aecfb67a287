//! `tallyport-oci precreate`: podman's hook of that name, which reads a configuration and writes the one to be used.
//!
//! Where it fails, podman starts no container at all and does not say why, so what came in goes out as it was.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use super::agent::Agent;
use super::bundle::Bundle;
use super::config::{InjectMode, WrapperConfig};
use super::errors::{Error, Reporter};
use super::inject::{self, Subject};

/// What the configuration is called in messages.
const NAME: &str = "standard input";

/// Reads a configuration, and writes it with the container's address.
pub(super) fn main(started: Instant) -> ExitCode {
    let report = Reporter::with_log(None);
    let mut text = Vec::new();
    // Bytes, because what is no text has to come out again, too.
    if let Err(error) = io::stdin().lock().read_to_end(&mut text) {
        report.log_error(&format!("cannot read the configuration: {error}"));
        return ExitCode::FAILURE;
    }
    let config = super::load_config(&report);
    let edited = match config.mode {
        InjectMode::Inject => inject_into_config(&text, &config, &report, started),
        InjectMode::PassThrough => Ok(None),
    };
    let output = match edited {
        Ok(edited) => edited.map_or(text, String::into_bytes),
        Err(error) if config.fail_closed => {
            report
                .log_error(&format!("the container does not start without a socket (fail_closed): {error}"));
            return ExitCode::FAILURE;
        }
        Err(error) => {
            report.log_warning(&format!("the container starts without a socket: {error}"));
            text
        }
    };
    match io::stdout().lock().write_all(&output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn inject_into_config(
    text: &[u8],
    config: &WrapperConfig,
    report: &Reporter,
    started: Instant,
) -> Result<Option<String>, Error> {
    config.ensure_usable()?;
    let path = Path::new(NAME);
    let garbled = |why: String| Error::Garbled { path: path.to_owned(), why };
    let text = std::str::from_utf8(text).map_err(|error| garbled(error.to_string()))?;
    let bundle = Bundle::read(text).map_err(|error| garbled(error.to_string()))?;
    let id = bundle
        .id()
        .ok_or_else(|| garbled("linux.cgroupsPath does not say which container it is".to_owned()))?;
    let subject = Subject { id, bundle: None, root: None, text, path };
    let agent = Agent::new(config.admin_socket(), config.trusted_users(), started + config.time_budget());
    Ok(inject::reserve_and_edit(&subject, config, &agent, report)?.map(|edited| edited.text))
}
