//! `tallyport health`: the check that orchestrators run, so it asks for one small document and nothing else.

use super::args::HealthArgs;
use super::failure::{Failure, code};
use super::output::Output;
use super::resolve::read;
use crate::wire::Health;

pub(super) async fn health(args: &HealthArgs, out: &mut Output) -> Result<(), Failure> {
    let health: Health<'_> = read(&args.at.client()?.get("/health").await?)?;
    // A variable that is set to nothing is as good as none.
    match args.instance.as_deref().filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if wanted != health.instance => Err(another(args, wanted, &health)),
        _ => Ok(out.line(format!("alive: tallyport {}, pid {}", health.version, health.pid))?),
    }
}

fn another(args: &HealthArgs, wanted: &str, health: &Health<'_>) -> Failure {
    let Health { pid, instance, .. } = health;
    let is = if instance.is_empty() { "has no name".to_owned() } else { format!("is {instance:?}") };
    let url = &args.at.url;
    Failure::new(code::ERROR, format!("another agent answers at {url}: pid {pid} {is}, not {wanted:?}")).hint(
        "during an update this ends when the new agent has taken over; `agent.instance` sets an agent's name",
    )
}
