//! The `tallyport` program: the agent, the launcher and the client commands.

use std::process::ExitCode;

use tallyport::net::sys::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    tallyport::cli::main()
}
