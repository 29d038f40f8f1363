//! The event log: one line per event on standard error, as text or JSON. Must not be on the path of a statement.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Changes the level of a log that was begun.
#[derive(Debug)]
pub struct Dial(reload::Handle<LevelFilter, Registry>);

impl Dial {
    /// The least that is logged from now on.
    pub fn set(&self, level: LogLevel) {
        // Fails only when the log is gone.
        let _ = self.0.reload(filter(level));
    }
}

/// Sends what happens to standard error from now on. Without effect if the process has a log already.
pub fn to_stderr(log: &Log) -> Dial {
    let (level, dial) = reload::Layer::new(filter(log.level));
    let registry = Registry::default().with(level);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A log that was begun elsewhere (a test's) stays.
    let _ = match log.format {
        LogFormat::Text => registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Dial(dial)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
