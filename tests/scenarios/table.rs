//! The table of scenarios in `tests/README.md`: with `PGHERD_REWRITE=1` each scenario writes its own line, with what was measured. Must
//! not judge.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::path::Path;
use std::time::Duration;

use crate::clients::Report;

const BEGIN: &str = "<!-- scenarios: written by `make scenarios` with PGHERD_REWRITE=1 -->";
const END: &str = "<!-- end of scenarios -->";
const HEAD: &str = "| scenario | fault | measured | bound | pgpool-II 3.3 showed | what the clients saw |\n| --- | --- | --- | --- | --- | --- |";
/// What a field report of 2014 saw of pgpool-II 3.3 and PostgreSQL 9.3, by the number of the scenario.
const REPORT: &[(u32, &str)] = &[
    (1, "refuses to start"),
    (2, "refuses to start"),
    (3, "takes the address"),
    (4, "refused, both logs say so"),
    (5, "standby, no address"),
    (6, "errors for 3 s"),
    (7, "standby, no effect"),
    (8, "errors for 5 s, all sessions cut"),
    (9, "stays detached"),
    (10, "no effect on sessions"),
    (11, "errors for 7 s, all sessions cut"),
    (12, "stays detached"),
    (13, "3 steps by hand, sessions cut"),
    (14, "errors for 1 to 2 s"),
    (15, "errors for 7 s"),
    (16, "errors for 6 s"),
    (17, "errors for 5 to 8 s"),
    (18, "process started again, no effect"),
    (19, "shown as down, no effect"),
    (20, "errors for 3 s"),
    (21, "never recovered: the address stayed on both hosts"),
    (22, "down until restarted by hand"),
    (23, "errors for 58 s"),
    (24, "no effect"),
    (25, "split brain: the address on both"),
    (26, "no effect"),
    (27, "restart of every proxy, errors twice"),
    (28, "works"),
    (29, "errors for 50 s"),
    (30, "stale files removed by hand"),
    (32, "writes fail silently until someone looks"),
    (33, "without its lock two failovers"),
];

/// Seconds for the table.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Notes the longest gap of a scenario's sessions, and fails if it is longer than the bound.
pub fn gap(scenario: &str, fault: &str, bound: Duration, report: &Report) {
    let measured = report.gap();
    line(
        scenario,
        fault,
        &format!("gap {}", seconds(measured)),
        &format!("{} s", bound.as_secs_f64()),
        &report.to_string(),
    );
    assert!(measured <= bound, "{scenario}: a gap of {measured:?}, at most {bound:?}\n{report}");
}

/// Of a scenario, 0 for what has a name of another kind.
fn number(scenario: &str) -> u32 {
    let digits: String =
        scenario.strip_prefix('S').unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Notes one scenario.
pub fn line(scenario: &str, fault: &str, measured: &str, bound: &str, saw: &str) {
    let before = REPORT.iter().find(|(known, _)| *known == number(scenario)).map_or("–", |(_, saw)| *saw);
    let line = format!("| {scenario} | {fault} | {measured} | {bound} | {before} | {saw} |");
    println!("{line}");
    if std::env::var_os("PGHERD_REWRITE").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md");
    let text = std::fs::read_to_string(&path).expect("there is one");
    let (before, rest) = text.split_once(BEGIN).expect("its place is marked");
    let (old, after) = rest.split_once(END).expect("its end is marked");
    let key = |line: &str| {
        let name = line.split('|').nth(1).unwrap_or_default().trim().to_owned();
        (!name.starts_with('S'), number(&name), name)
    };
    let mut lines: Vec<&str> = old.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    let fault_of = |line: &str| line.split('|').nth(2).unwrap_or_default().trim().to_owned();
    lines.retain(|known| (key(known), fault_of(known)) != (key(&line), fault.to_owned()));
    lines.push(&line);
    lines.sort_by_key(|line| key(line));
    let text = format!("{before}{BEGIN}\n{HEAD}\n{}\n{END}{after}", lines.join("\n"));
    std::fs::write(&path, text).expect("written");
}
