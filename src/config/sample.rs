//! The sample file, made of the parameter table. A default is a comment; what stands without `#` is the example.

use super::table::{Kind, Presence, Reload, Row, SECTIONS, Section, SectionRow, Shape};

/// The text of `conf/pgherd.toml`.
pub fn sample() -> String {
    let mut text = String::from(HEAD);
    for row in Section::Root.rows() {
        parameter(&mut text, row, false);
    }
    for section in SECTIONS {
        text.push('\n');
        write_section(&mut text, section);
    }
    text
}

const HEAD: &str = "\
# pgherd: one section per subject, one line per parameter. A line behind \"#\" shows the default, or an example where
# there is none. Durations: \"300ms\", \"10s\", \"5min\", \"1h\", \"1d\"; sizes: \"64kB\", \"16MB\", \"1GB\". Relative paths start
# in the folder of this file. `pgherd check --config FILE` says what is wrong with it; `pgherd reload` applies it.
# In brackets: (from … to …; new sessions: a reload changes sessions that start later; restart: needs a new start).

";

fn write_section(text: &mut String, section: &SectionRow) {
    line(text, &format!("# {}", section.doc));
    // The file must say something about a server; all else may stay as it is.
    let off = section.shape != Shape::Always && section.section != Section::Node;
    line(text, &format!("{}{}", if off { "#" } else { "" }, section.section.header()));
    for row in section.section.rows() {
        parameter(text, row, off);
    }
}

fn parameter(text: &mut String, row: &Row, off: bool) {
    let (value, active) = match row.presence {
        Presence::Default(value) | Presence::Unset(value) => (value, false),
        Presence::Required(value) => (value, !off),
    };
    let head = format!("{}{} = {value}", if active { "" } else { "#" }, row.name);
    let note = note(row);
    let one = format!("{head:<40} # {}{note}", row.doc);
    if one.chars().count() <= 120 {
        return line(text, &one);
    }
    for part in wrap(&format!("{}{note}", row.doc), 114) {
        line(text, &format!("# {part}"));
    }
    line(text, &head);
}

/// Range and reload class, where they are not obvious.
fn note(row: &Row) -> String {
    let range = match row.kind {
        Kind::Int(1, 65_535) | Kind::Float(..) | Kind::Size(_) => None,
        Kind::Int(from, to) => Some(format!("{from} to {to}")),
        Kind::Choice(_) | Kind::Duration(..) => Some(row.kind.describe().replace("a duration ", "").replace('"', "")),
        _ => None,
    };
    let class = match row.reload {
        Reload::Live => None,
        Reload::NewSessions => Some("new sessions".to_owned()),
        Reload::Restart => Some("restart".to_owned()),
    };
    let parts: Vec<_> = range.into_iter().chain(class).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("starts with one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
