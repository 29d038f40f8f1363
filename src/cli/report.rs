//! How answers look: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{Table, presets::NOTHING};
use nix::unistd::Pid;
use serde_json::json;

/// A table with that head.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Writes to standard output. `pgherd check | head` must end quietly, so a reader that went away is no error.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// One sentence about a process.
pub(super) fn said(json: bool, done: &str, pid: Pid, note: &str) {
    let text = match note {
        _ if json => json!({ "result": done, "pid": pid.as_raw() }).to_string(),
        "" => format!("{done} (process {pid})"),
        note => format!("{done} (process {pid}); {note}"),
    };
    print(&format!("{text}\n"));
}
