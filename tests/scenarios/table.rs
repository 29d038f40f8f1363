//! The table of scenarios in `tests/README.md`: with `PGHERD_REWRITE=1` each scenario writes its own line, with what was measured. Must
//! not judge.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::path::Path;
use std::time::Duration;

use crate::clients::Report;

const BEGIN: &str = "<!-- scenarios: written by `make scenarios` with PGHERD_REWRITE=1 -->";
const END: &str = "<!-- end of scenarios -->";
const HEAD: &str = "| scenario | fault | measured | bound | what the clients saw |\n| --- | --- | --- | --- | --- |";

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

/// Notes one scenario.
pub fn line(scenario: &str, fault: &str, measured: &str, bound: &str, saw: &str) {
    let line = format!("| {scenario} | {fault} | {measured} | {bound} | {saw} |");
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
        let digits: String = name.chars().skip(1).take_while(char::is_ascii_digit).collect();
        (name.chars().next().unwrap_or(' ') != 'S', digits.parse::<u32>().unwrap_or(0), name)
    };
    let mut lines: Vec<&str> = old.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    let fault_of = |line: &str| line.split('|').nth(2).unwrap_or_default().trim().to_owned();
    lines.retain(|known| (key(known), fault_of(known)) != (key(&line), fault.to_owned()));
    lines.push(&line);
    lines.sort_by_key(|line| key(line));
    let text = format!("{before}{BEGIN}\n{HEAD}\n{}\n{END}{after}", lines.join("\n"));
    std::fs::write(&path, text).expect("written");
}
