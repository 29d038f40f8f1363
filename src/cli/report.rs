//! How answers look: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{Table, presets::NOTHING};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Head and key of each column.
pub(super) type Columns = &'static [(&'static str, &'static str)];

const CHANGES: Columns = &[("PARAMETER", "parameter"), ("OLD", "old"), ("NEW", "new"), ("HOLDS", "holds")];

/// A table with that head.
pub(super) fn table<const N: usize>(head: [&'static str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    lines(head, rows)
}

fn lines<Row: IntoIterator<Item = String>>(
    head: impl IntoIterator<Item = &'static str>,
    rows: impl IntoIterator<Item = Row>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A table of objects.
pub(super) fn list(rows: &Value, columns: Columns) -> String {
    let rows = rows.as_array().into_iter().flatten();
    lines(
        columns.iter().map(|(head, _)| *head),
        rows.map(|row| columns.iter().map(|(_, key)| text(&row[*key])).collect::<Vec<_>>()),
    )
}

/// A value as people read it; control characters of clients must not reach a terminal.
pub(super) fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    };
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// What a reload did.
pub(super) fn reloaded(told: &Value) -> String {
    let said = format!("{}\n", text(&told["text"]));
    match told["changes"].as_array() {
        Some(changes) if !changes.is_empty() => format!("{said}\n{}", list(&told["changes"], CHANGES)),
        _ => said,
    }
}

/// Writes to standard output. `pgherd check | head` must end quietly, so a reader that went away is no error.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// One sentence about a process.
pub(super) fn said(json: bool, done: &str, pid: Pid) {
    let text = match json {
        true => json!({ "result": done, "pid": pid.as_raw() }).to_string(),
        false => format!("{done} (process {pid})"),
    };
    print(&format!("{text}\n"));
}
