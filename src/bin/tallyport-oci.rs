//! The `tallyport-oci` program: an OCI runtime wrapper and its hooks.

use std::process::ExitCode;

fn main() -> ExitCode {
    tallyport_oci::main()
}
