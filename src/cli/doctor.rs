//! `tallyport doctor`: finds problems on this node, and suggests fixes.

mod containers;
pub(super) mod finding;
mod guard;
mod node;
mod plugin;
mod publishers;
mod series;
mod state;

use std::process::ExitCode;

use super::args::{DoctorArgs, OutputFormat};
use super::failure::{Failure, code};
use super::output::Console;
use super::probe::run_probes;
use super::resolve::parse_response;
use super::setting_places::SettingPlaces;
use super::socket_access::explain_access;
use crate::client::Client;
use crate::wire::{AccountingDocument, ContainerDocument, NodeDocument, PublisherDocument, Task};
use finding::{Finding, FindingStatus, drop_contradicted, merge_repeated, print_findings};

pub(super) async fn run_doctor(args: &DoctorArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    let client = args.client.build_client()?;
    let node: NodeDocument = parse_response(&client.get("/v1/node").await?)?;
    let accounting: AccountingDocument = parse_response(&client.get("/v1/accounting").await?)?;
    let admin = args.admin.build_client();
    let (reached, containers) = fetch_containers(&admin, &node).await;
    let mut findings = node::check_node(&node, &accounting);
    findings.push(guard::check_guard(&node, &containers));
    findings.extend(state::check_window_log(node.window_log.as_ref()));
    findings.extend(node.nri.iter().flat_map(plugin::plugin_findings));
    let publishers = fetch_publishers(&client).await;
    findings.extend(publishers.iter().flat_map(publishers::check_publisher));
    findings.extend(publishers::check_backlog(&node, &publishers));
    if args.publish {
        for publisher in &publishers {
            findings.extend(publishers::compare_sample(&admin, publisher).await);
        }
    }
    findings.extend(state::totals_finding(node.totals_evicted));
    findings.extend(series::check_limits(&accounting));
    findings.extend(series::check_names(&node));
    findings.extend(node.pages.iter().map(state::pages_finding));
    findings.push(reached);
    let check_one =
        |container| containers::check_container(container, containers::find_counts(&accounting, container));
    findings.extend(merge_repeated(containers.iter().flat_map(check_one).collect()));
    findings.extend(check_tasks(&admin).await);
    findings.extend(run_probes(args).await);
    drop_contradicted(&mut findings);
    let places = SettingPlaces::fetch_places(node.config_file.clone(), &admin).await;
    for finding in &mut findings {
        finding.name_places(&places);
    }
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&findings)?,
        OutputFormat::Ndjson => out.write_ndjson(&findings)?,
        OutputFormat::Table => print_findings(&findings, out)?,
    }
    let failed = findings.iter().any(|finding| finding.status == FindingStatus::Failed);
    Ok(if failed { ExitCode::from(code::ERROR) } else { ExitCode::SUCCESS })
}

/// Whether the admin socket answers, and the containers that have not ended.
async fn fetch_containers(admin: &Client, node: &NodeDocument) -> (Finding, Vec<ContainerDocument>) {
    const CHECK: &str = "admin socket";
    let error = match admin.get("/v1/containers").await {
        Ok(response) => match parse_response::<Vec<ContainerDocument>>(&response) {
            Ok(mut containers) => {
                containers.retain(|container| container.reserved.state != "gone");
                let found = format!("{} answers", admin.target());
                return (Finding::new(CHECK, FindingStatus::Ok, found), containers);
            }
            Err(_) => None,
        },
        Err(error) => Some(error),
    };
    let found = format!("{} does not answer; containers were not checked", admin.target());
    let mut finding = Finding::new(CHECK, FindingStatus::Warning, found);
    match error.as_ref().and_then(explain_access) {
        Some(why) => finding = finding.with_advice(why.message).with_advice(why.remedy),
        None if !node.admin_socket.is_empty() => {
            finding = finding.with_advice(format!(
                "the agent's own is {}: give it with --admin-socket; your user needs access to it (admin.mode)",
                node.admin_socket
            ));
        }
        None => {}
    }
    (finding, Vec::new())
}

/// The publishers; none from an agent without that route.
pub(super) async fn fetch_publishers(client: &Client) -> Vec<PublisherDocument> {
    let Ok(response) = client.get("/v1/publishers").await else { return Vec::new() };
    parse_response(&response).unwrap_or_default()
}

/// The rejected lines of tasks that have not ended; none without the admin socket.
async fn check_tasks(admin: &Client) -> Vec<Finding> {
    let Ok(response) = admin.get("/v1/tasks").await else { return Vec::new() };
    let Ok(tasks) = parse_response::<Vec<Task>>(&response) else { return Vec::new() };
    let live = tasks.iter().filter(|task| !task.finished);
    merge_repeated(live.filter_map(containers::check_rejected_lines).collect())
}
