//! What someone may have meant by a key that does not exist: a slip of the fingers, another section, a name of
//! pgpool-II or PgBouncer. Pure.

use std::ops::Range;

use super::problem::Problem;
use super::table::{Row, Section, all};

/// Names of pgpool-II that have no row, and what to do instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("allow_clear_text_frontend_auth", "write a `password` line into auth.hba_file"),
    ("backend_clustering_mode", "pgherd is for streaming replication; leave it out"),
    ("child_max_connections", "pgherd has no child processes; leave it out"),
    ("client_idle_limit_in_recovery", "online recovery does not stop clients; leave it out"),
    ("connection_cache", "connections are always pooled; `mode = \"session\"` in [pool] is nearest to pgpool-II"),
    ("detach_false_primary", "a second primary is always detached; leave it out"),
    ("failover_on_backend_error", "a session's error starts a health check and condemns nothing; leave it out"),
    ("listen_backlog_multiplier", "use `backlog` in [listen]"),
    ("recovery_2nd_stage_command", "online recovery of streaming replication has one stage; leave it out"),
    ("reset_query_list", "server connections are cleaned as needed; leave it out"),
    ("serialize_accept", "pgherd has no child processes; leave it out"),
    ("sr_check_period", "roles and lag are read with each health check: `period` in [health_check]"),
    ("use_watchdog", "write the section [watchdog]"),
];

/// The problem of an unknown key, with the best guess.
pub(super) fn unknown(section: Section, name: &str, span: Range<usize>) -> Problem {
    let is_table = section == Section::Root && !name.is_empty();
    let place = if section == Section::Root {
        "at the head of the file".to_owned()
    } else {
        format!("in {}", section.header())
    };
    let problem = Problem::at(span, format!("unknown key `{name}` {place}"));
    if let Some(hint) = legacy(name).filter(|_| section == Section::Root) {
        return problem.hint(hint);
    }
    if let Some(near) = nearest(name, keys(section)) {
        return problem.hint(format!("did you mean `{near}`?"));
    }
    if let Some(hint) = legacy(name) {
        return problem.hint(hint);
    }
    let elsewhere: Vec<_> = all().iter().filter(|row| row.name == name).map(Row::place).collect();
    if !elsewhere.is_empty() {
        return problem.hint(format!("there is {}", elsewhere.join(", ")));
    }
    if is_table {
        let sections: Vec<_> = Section::Root.children().map(|row| row.section.header()).collect();
        return problem.hint(format!("sections are {}", sections.join(", ")));
    }
    problem.hint(format!("it knows {}", keys(section).collect::<Vec<_>>().join(", ")))
}

fn keys(section: Section) -> impl Iterator<Item = &'static str> {
    section.rows().map(|row| row.name).chain(section.children().map(|child| child.key))
}

/// What a parameter of pgpool-II or PgBouncer is called here.
fn legacy(name: &str) -> Option<String> {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let known = |names: &str| names.split(' ').any(|old| !old.is_empty() && (old == name || old == bare));
    if let Some((_, hint)) = ELSEWHERE.iter().find(|(old, _)| *old == name) {
        return Some(format!("pgpool-II's `{name}`: {hint}"));
    }
    let places: Vec<_> = all().iter().filter(|row| known(row.pgpool)).map(Row::place).collect();
    if places.is_empty() { None } else { Some(format!("here that is {}", places.join(" and "))) }
}

/// The name that needs the fewest changes, if few enough for a slip.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known.map(|candidate| (distance(name, candidate), candidate)).filter(|(d, _)| *d <= limit).min().map(|(_, c)| c)
}

/// Insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    // A key of a megabyte is no slip, and would make a table of its square.
    if a.len() > 64 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swap { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(section: Section, name: &str) -> String {
        unknown(section, name, 0..1).hint.expect("always a hint")
    }

    #[test]
    fn slips_old_names_and_wrong_sections_are_recognised() {
        assert_eq!(hint(Section::Listen, "prot"), "did you mean `port`?");
        assert_eq!(hint(Section::Pool, "min_szie"), "did you mean `min_size`?");
        assert_eq!(hint(Section::Root, "backend_hostname0"), "here that is `host` in [[node]]");
        assert_eq!(hint(Section::Listen, "num_init_children"), "here that is `max_clients` in [listen]");
        assert_eq!(hint(Section::Root, "listn"), "did you mean `listen`?");
        assert_eq!(hint(Section::Listen, "weight"), "there is `weight` in [[node]]");
        assert_eq!(hint(Section::Root, "port"), "here that is `port` in [listen]");
        assert!(hint(Section::Root, "serialize_accept").contains("leave it out"));
        assert!(hint(Section::Auth, "zzzz").starts_with("it knows hba_file"));
        assert!(hint(Section::Auth, &"z".repeat(100_000)).starts_with("it knows"));
    }
}
