//! Logging to standard error, as text or JSON, with a filter that can be changed at run time.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogConfig, LogFormat};

/// A handle for changing the log filter.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<Targets, tracing_subscriber::Registry>);

impl LogFilter {
    /// Replaces the filter.
    pub fn set_directives(&self, filter: &str) {
        // The handle outlives the subscriber only in tests.
        let _either_way = self.0.reload(parse_targets(filter));
    }
}

/// Starts logging. Later calls in the same process have no effect.
#[must_use]
pub fn start(log: &LogConfig) -> LogFilter {
    let (filter, handle) = reload::Layer::new(parse_targets(&log.filter));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
        LogFormat::Text => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal()))
            .try_init(),
    };
    drop(started);
    LogFilter(handle)
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Parses a filter that the configuration has already checked.
fn parse_targets(filter: &str) -> Targets {
    filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_for_the_agent_covers_its_crates() {
        let filter = parse_targets("error,tallyport=debug");
        for target in ["tallyport::app", "tallyport_linux::unix"] {
            assert!(filter.would_enable(target, &Level::DEBUG), "{target}");
        }
        assert!(!filter.would_enable("hyper::proto", &Level::WARN));
        assert!(!parse_targets("info").would_enable("tallyport_linux::unix", &Level::DEBUG));
    }
}
