//! `reload` and `stop`: what the running process, found by its pid file, is told. Must not guess processes by name.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::pid::{self, PidError};
use super::{Failure, StopMode, report};
use crate::app::hatch::{self, Unheard};
use crate::config::Settings;
use crate::support::clock;

/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Validates the file, has the process reload, and shows what it says of it.
pub(super) fn reload(config: &Path, json: bool) -> Result<ExitCode, Failure> {
    let settings = Settings::load(config)?;
    let pid = pid::running(&settings.pid_file)?;
    match hatch::ask(&settings.pid_file, pid) {
        Ok(mut told) if json => {
            told["result"] = "reloaded".into();
            told["pid"] = pid.as_raw().into();
            report::print(&format!("{told}\n"));
        }
        Ok(told) => report::print(&report::reloaded(&told)),
        Err(Unheard::Closed(error)) => {
            send(pid, Signal::SIGHUP)?;
            return Err(format!("process {pid} was sent SIGHUP; only its log says what came of it ({error})").into());
        }
        Err(unheard) => return Err(format!("process {pid}: {unheard}").into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends the mode's signal and waits for the end.
pub(super) fn stop(config: &Path, mode: StopMode, limit: Duration, json: bool) -> Result<ExitCode, Failure> {
    let path = Settings::load(config)?.pid_file;
    let pid = pid::running(&path)?;
    send(pid, signal(mode))?;
    let start = clock::now();
    while clock::now().duration_since(start) < limit {
        // A file that another process holds by now belongs to a successor: ours has ended.
        match pid::running(&path) {
            Ok(now) if now == pid => std::thread::sleep(POLL),
            Ok(_) | Err(PidError::NotRunning { .. }) => {
                report::said(json, "stopped", pid);
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let how = if mode == StopMode::Smart {
        "clients are still connected; --mode fast ends them"
    } else {
        "try --mode immediate"
    };
    Err(format!("process {pid} is still running after {} s; {how}", limit.as_secs()).into())
}

/// pgpool-II's and PostgreSQL's signals for these modes.
fn signal(mode: StopMode) -> Signal {
    match mode {
        StopMode::Smart => Signal::SIGTERM,
        StopMode::Fast => Signal::SIGINT,
        StopMode::Immediate => Signal::SIGQUIT,
    }
}

fn send(pid: Pid, signal: Signal) -> Result<(), Failure> {
    kill(pid, signal).map_err(|errno| format!("process {pid} cannot be signalled: {}", errno.desc()).into())
}
