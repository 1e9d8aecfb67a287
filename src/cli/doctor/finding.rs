//! What checks find, and how findings are printed.

use serde::Serialize;

use crate::cli::output::Console;

/// The result of a check.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum FindingStatus {
    Ok,
    Warning,
    Failed,
}

/// What a check found, and what to do about it.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: FindingStatus,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advice: Vec<String>,
}

impl Finding {
    pub(in crate::cli) fn new(check: &'static str, status: FindingStatus, found: impl Into<String>) -> Self {
        Self { check, status, found: found.into(), advice: Vec::new() }
    }

    pub(in crate::cli) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }
}

pub(super) fn print_findings(findings: &[Finding], out: &mut Console) -> std::io::Result<()> {
    for finding in findings {
        let mark = match finding.status {
            FindingStatus::Ok => out.style_success("ok     "),
            FindingStatus::Warning => out.style_warning("warning"),
            FindingStatus::Failed => out.style_error("FAILED "),
        };
        out.write_line(mark + format!("  {:<15}  {}", finding.check, finding.found))?;
        for advice in &finding.advice {
            out.write_line(format!("                          {advice}"))?;
        }
    }
    Ok(())
}
