//! `tallyport health`: the check that orchestrators run, so it asks for one small document and nothing else.

use super::args::HealthArgs;
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::parse_response;
use crate::wire::HealthDocument;

pub(super) async fn check_health(args: &HealthArgs, out: &mut Console) -> Result<(), Failure> {
    let health: HealthDocument<'_> = parse_response(&args.at.build_client()?.get("/health").await?)?;
    // A variable that is set to nothing is as good as none.
    match args.instance.as_deref().filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if wanted != health.instance => Err(wrong_instance_failure(args, wanted, &health)),
        _ => Ok(out.write_line(format!("alive: tallyport {}, pid {}", health.version, health.pid))?),
    }
}

fn wrong_instance_failure(args: &HealthArgs, wanted: &str, health: &HealthDocument<'_>) -> Failure {
    let HealthDocument { pid, instance, .. } = health;
    let is = if instance.is_empty() { "has no name".to_owned() } else { format!("is {instance:?}") };
    let url = &args.at.url;
    Failure::new(code::ERROR, format!("another agent answers at {url}: pid {pid} {is}, not {wanted:?}")).with_hint(
        "during an update this ends when the new agent has taken over; `agent.instance` sets an agent's name",
    )
}
