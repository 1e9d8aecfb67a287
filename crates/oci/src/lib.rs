//! `tallyport-oci`: wraps an OCI runtime and gives containers the address of their socket.
//!
//! ```text
//! containerd, dockerd, podman, CRI-O ── create, run, restore ──▶ tallyport-oci ── exec ──▶ runc, crun
//!                                                                 │    │                    │ createRuntime, poststop
//!                                        reserve, over admin.sock ◀    ▶ config.json:       ▼
//!                                                                        environment,     tallyport-oci hook:
//!                                                                        hooks            attach, release
//! ```
//!
//! Everything else is passed through. The wrapper runs for every call of the runtime, so it is small and fast: no async
//! runtime, no argument parser, no logging framework. And every container depends on it: unless configured otherwise, a
//! failure is reported, and the container starts as it would without the wrapper.

mod agent;
mod bundle;
mod command_line;
mod config;
mod descriptors;
pub mod document;
pub mod edit;
mod errors;
mod exec;
pub mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hook;
mod identity;
mod inject;
pub mod missed;
mod runtime;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use command_line::{Call, CallKind};
use config::{Broken, InjectMode, WrapperConfig};
use errors::{Error, Reporter};

/// Runs the program that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let started = Instant::now();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("hook") => return hook::main(arguments.get(2..).unwrap_or_default(), started),
        Some("precreate") => return inject::run_precreate(started),
        _ => {}
    }
    let call = Call::read(&arguments);
    let report = Reporter::new(&call);
    let config = load_config(&report);
    if config.mode == InjectMode::Inject
        && let Err(refused) = intercept_call(&call, &config, &report, started)
    {
        report.log_error(&refused.to_string());
        return ExitCode::FAILURE;
    }
    let error = runtime::become_it(&arguments, &config);
    report.log_error(&error.to_string());
    ExitCode::FAILURE
}

/// Loads the settings. If the file is broken, calls are passed to the runtime unchanged, unless `fail_closed = true`
/// can still be read: then no container starts.
fn load_config(report: &Reporter) -> WrapperConfig {
    match WrapperConfig::load() {
        Ok(config) => config,
        Err(Broken { error, fail_closed: true }) => {
            WrapperConfig { fail_closed: true, broken: Some(error.to_string()), ..WrapperConfig::default() }
        }
        Err(Broken { error, .. }) => {
            report.log_warning(&format!(
                "containers start without sockets until the configuration is fixed: {error}"
            ));
            WrapperConfig { mode: InjectMode::PassThrough, ..WrapperConfig::default() }
        }
    }
}

/// Prepares a call before it is passed to the runtime. An error means that the container must not start.
fn intercept_call(
    call: &Call,
    config: &WrapperConfig,
    report: &Reporter,
    started: Instant,
) -> Result<(), Error> {
    match call.kind {
        CallKind::Create => match inject::inject_socket(call, config, report, started) {
            Err(error) if config.fail_closed => {
                Err(Error::Closed { id: call.id.clone().unwrap_or_default(), source: Box::new(error) })
            }
            Err(error) => {
                let id = call.id.as_deref().unwrap_or_default();
                report.log_warning(&format!(
                    "container {id:?} starts without a socket, so its metrics will not be counted: {error}"
                ));
                Ok(())
            }
            Ok(()) => Ok(()),
        },
        CallKind::Exec => {
            if let Err(error) = exec::inject_into_process(call) {
                report.log_warning(&format!(
                    "the command starts without the container's STATSD_UDP_HOST: {error}"
                ));
            }
            Ok(())
        }
        CallKind::Other => Ok(()),
    }
}
