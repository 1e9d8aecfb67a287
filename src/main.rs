//! The `tallyport` program: the agent, the launcher and the commands that ask an agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    tallyport::cli::main()
}
