//! `tallyport hook install|remove`: engines' configuration, shown before it is written.

use std::path::PathBuf;

use similar::TextDiff;

use super::args::{EngineArgs, EngineName, HookInstallArgs, HookRemoveArgs, MechanismName};
use super::failure::Failure;
use super::output::Output;
use super::text::Text;
use crate::install::{self, Change, Engine, Mechanism, Plan, Request};

/// Lines around a change.
const CONTEXT: usize = 3;

pub(super) fn install(args: &HookInstallArgs, out: &mut Output) -> Result<(), Failure> {
    let mut request = request(&args.engine)?;
    request.mechanism = match args.mechanism {
        MechanismName::Wrapper => Mechanism::Wrapper,
        MechanismName::Hook => Mechanism::Hook,
        MechanismName::BaseSpec => Mechanism::BaseSpec,
    };
    request.default = args.default;
    request.specification.clone_from(&args.spec);
    request.runtime.clone_from(&args.real_runtime);
    let plan = install::plan(&request)?;
    carry_out(&plan, args.engine.dry_run, "nothing to do: it is installed", out)
}

pub(super) fn remove(args: &HookRemoveArgs, out: &mut Output) -> Result<(), Failure> {
    let plan = install::plan_removal(&request(&args.engine)?)?;
    carry_out(&plan, args.engine.dry_run, "nothing to do: it is not installed", out)
}

fn request(args: &EngineArgs) -> Result<Request, Failure> {
    let beside = || Ok(std::env::current_exe()?.with_file_name("tallyport-oci"));
    Ok(Request {
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
            .map_err(|error: std::io::Error| Failure::system(&error))?,
        runtime: None,
        directory: args.directory.clone(),
        specification: None,
    })
}

fn carry_out(plan: &Plan, dry_run: bool, nothing: &str, out: &mut Output) -> Result<(), Failure> {
    for change in &plan.changes {
        out.lines(difference(change, out).into_iter())?;
    }
    for note in &plan.notes {
        out.line(note)?;
    }
    if plan.changes.is_empty() {
        return Ok(out.line(nothing)?);
    }
    if dry_run {
        return Ok(out.line("nothing was written (--dry-run)")?);
    }
    for said in install::apply(plan)? {
        out.line(&said)?;
    }
    Ok(out.line(format!("next: {}", plan.restart))?)
}

/// A change as `diff -u` shows it.
fn difference(change: &Change, out: &Output) -> Vec<Text> {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let nowhere = PathBuf::from("/dev/null");
    let name = |text: Option<&str>| text.map_or(&nowhere, |_| &change.path).display().to_string();
    let diff = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
    let text = diff.unified_diff().context_radius(CONTEXT).header(&name(before), &name(after)).to_string();
    let coloured = text.lines().map(|line| match line.chars().next() {
        Some('+') => out.good(line),
        Some('-') => out.bad(line),
        _ => line.into(),
    });
    coloured.collect()
}
