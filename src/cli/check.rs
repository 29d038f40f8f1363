//! `check`: the file, the files that it names, and each server, in one report.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, report, servers};
use crate::app::watchdog::problems as watchdog_problems;
use crate::auth::{Users, hba::Hba};
use crate::config::Settings;
use crate::failover::command::{Subject, arguments};
use crate::net::ServerTls;
use crate::net::program::find;
use crate::support::command_line::divide;
use crate::watchdog::runner::settings::arbiter;
use crate::watchdog::timings::guarantee;

/// What was found out about one thing.
pub(super) struct Finding {
    pub(super) what: String,
    /// A file, or where a server listens.
    pub(super) place: String,
    /// Good news, or what is wrong.
    pub(super) result: Result<String, String>,
}

/// Validates, connects and reports; status 1 if anything is wrong.
pub(super) fn run(path: &Path, json: bool, offline: bool) -> Result<ExitCode, Failure> {
    let settings = Settings::load(path)?;
    let mut findings = files(&settings);
    if !offline {
        findings.extend(servers::findings(&settings)?);
    }
    let bad = findings.iter().filter(|finding| finding.result.is_err()).count();
    if json {
        let list: Vec<_> = findings.iter().map(Finding::json).collect();
        report::print(&format!("{}\n", json!({ "file": path, "ok": bad == 0, "checks": list })));
        return Ok(status(bad));
    }
    let (nodes, pool) = (settings.nodes.len(), &settings.pool);
    let head = format!("{}: {nodes} node(s), pool mode {}, size {}", path.display(), pool.mode, pool.size);
    let table = report::table(["CHECKED", "PLACE", "RESULT"], findings.iter().map(Finding::row));
    let verdict = if bad == 0 { "all is well".to_owned() } else { format!("{bad} of {} are wrong", findings.len()) };
    report::print(&format!("{head}\n\n{table}\n{verdict}\n"));
    Ok(status(bad))
}

fn status(bad: usize) -> ExitCode {
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Finding {
    fn row(&self) -> [String; 3] {
        let result = match &self.result {
            Ok(text) => text.clone(),
            Err(text) => format!("WRONG: {text}"),
        };
        [self.what.clone(), self.place.clone(), result]
    }

    fn json(&self) -> serde_json::Value {
        let (Ok(text) | Err(text)) = &self.result;
        json!({ "what": self.what, "place": self.place, "ok": self.result.is_ok(), "text": text })
    }
}

/// The files that the settings name.
fn files(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what: &str, path: &Path, result| {
        findings.push(Finding { what: what.to_owned(), place: path.display().to_string(), result });
    };
    if let Some(path) = &settings.auth.hba_file {
        add("auth.hba_file", path, Hba::load(path).map(|_| "ok".to_owned()).map_err(|error| error.to_string()));
    }
    if let Some(path) = &settings.auth.users_file {
        let users = Users::load(path).map_err(|error| error.to_string());
        let users = users.and_then(|(users, warning)| warning.map_or(Ok(format!("{} users", users.len())), Err));
        add("auth.users_file", path, users);
    }
    if let Some(watchdog) = &settings.watchdog {
        let problems = watchdog_problems(settings);
        let guarantee = || guarantee(watchdog.peers.len() + 1, arbiter(settings, watchdog));
        let result = if problems.is_empty() { Ok(guarantee()) } else { Err(problems.join("; ")) };
        add("watchdog", &watchdog.state_directory, result);
        let folder = &watchdog.commands.folder;
        for (name, command) in watchdog.commands.all() {
            let words = watchdog.words(name, command, 1);
            let found = words.and_then(|words| find(&words[0], folder));
            add(&format!("watchdog.{name}"), folder, found.map(|place| place.display().to_string()));
        }
    }
    let (failover, recovery) = (&settings.failover.commands, &settings.recovery);
    let hooks = failover.all().map(|(name, line)| (format!("failover.{name}"), line));
    let copies = recovery.command.as_deref().map(|line| ("recovery.command".to_owned(), line));
    for (name, line) in hooks.chain(copies) {
        add(&name, &failover.folder, program(line, &failover.folder));
    }
    if let Some(tls) = &settings.tls {
        let made = ServerTls::new(&tls.cert, &tls.key, tls.client_ca.as_deref());
        add("tls", &tls.cert, made.map(|_| "ok".to_owned()).map_err(|error| error.to_string()));
    }
    findings
}

/// The program of a hook: that it cannot be run is found here, and not when a primary has died.
fn program(line: &str, folder: &Path) -> Result<String, String> {
    let name = divide(line)?.into_iter().next().unwrap_or_default();
    let words = arguments(line, &Subject::default());
    if name.contains('%') {
        // Each server has its own.
        return Ok(format!("{name}, as each server has it"));
    }
    Ok(find(&words?[0], folder)?.display().to_string())
}
