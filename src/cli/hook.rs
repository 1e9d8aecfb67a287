//! `tallyport hook install|remove`: changes engines' configuration, and shows the changes first.

mod args;

use std::path::PathBuf;

use similar::TextDiff;

use super::failure::{Failure, code};
use super::output::Console;
use super::text::SafeText;
use crate::install::{self, Engine, FileChange, InstallPlan, InstallRequest, Mechanism};
pub(super) use args::HookCommand;
use args::{EngineArgs, EngineName, HookInstallArgs, HookRemoveArgs, MechanismName};

/// Lines of context around a change.
const CONTEXT: usize = 3;

pub(super) fn run_hook(command: &HookCommand, out: &mut Console) -> Result<(), Failure> {
    match command {
        HookCommand::Install(args) => install_hook(args, out),
        HookCommand::Remove(args) => remove_hook(args, out),
    }
}

fn install_hook(args: &HookInstallArgs, out: &mut Console) -> Result<(), Failure> {
    let mut request = build_request(&args.engine)?;
    request.mechanism = match args.mechanism {
        MechanismName::Wrapper => Mechanism::Wrapper,
        MechanismName::Hook => Mechanism::Hook,
        MechanismName::BaseSpec => Mechanism::BaseSpec,
    };
    request.default = args.default;
    request.specification.clone_from(&args.spec);
    request.runtime.clone_from(&args.real_runtime);
    let plan = install::plan_installation(&request)?;
    carry_out(&plan, args.engine.dry_run, "nothing to do: it is installed", out)
}

fn remove_hook(args: &HookRemoveArgs, out: &mut Console) -> Result<(), Failure> {
    let plan = install::plan_removal(&build_request(&args.engine)?)?;
    carry_out(&plan, args.engine.dry_run, "nothing to do: it is not installed", out)
}

fn build_request(args: &EngineArgs) -> Result<InstallRequest, Failure> {
    let beside = || Ok(std::env::current_exe()?.with_file_name("tallyport-oci"));
    Ok(InstallRequest {
        engine: match args.engine {
            EngineName::Containerd => Engine::Containerd,
            EngineName::Docker => Engine::Docker,
            EngineName::Podman => Engine::Podman,
            EngineName::Crio => Engine::Crio,
        },
        mechanism: Mechanism::Wrapper,
        config: args.config.clone(),
        name: args.runtime_name.clone(),
        default: false,
        wrapper: args
            .wrapper
            .clone()
            .map_or_else(beside, Ok)
            .map_err(|error: std::io::Error| Failure::system_error(&error))?,
        runtime: None,
        directory: args.directory.clone(),
        specification: None,
    })
}

fn carry_out(plan: &InstallPlan, dry_run: bool, nothing: &str, out: &mut Console) -> Result<(), Failure> {
    for change in &plan.changes {
        out.write_lines(format_diff(change, out).into_iter())?;
    }
    for note in &plan.notes {
        out.write_line(note)?;
    }
    if plan.changes.is_empty() {
        return Ok(out.write_line(nothing)?);
    }
    if dry_run {
        return Ok(out.write_line("nothing was written (--dry-run)")?);
    }
    for said in install::apply_plan(plan)? {
        out.write_line(&said)?;
    }
    Ok(out.write_line(format!("next: {}", plan.restart))?)
}

/// A change in the format of `diff -u`.
fn format_diff(change: &FileChange, out: &Console) -> Vec<SafeText> {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let nowhere = PathBuf::from("/dev/null");
    let name = |text: Option<&str>| text.map_or(&nowhere, |_| &change.path).display().to_string();
    let diff = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
    let text = diff.unified_diff().context_radius(CONTEXT).header(&name(before), &name(after)).to_string();
    let coloured = text.lines().map(|line| match line.chars().next() {
        Some('+') => out.style_success(line),
        Some('-') => out.style_error(line),
        _ => line.into(),
    });
    coloured.collect()
}

impl From<install::Error> for Failure {
    fn from(error: install::Error) -> Self {
        let code = if matches!(error, install::Error::Request(_)) { code::USAGE } else { code::ERROR };
        Self::new(code, error.to_string())
    }
}
