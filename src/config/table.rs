//! What a parameter is: its section, kind, default, reload class and names. The rows themselves are in `rows`.
//!
//! The table makes the checks of the file, its sample, the reload plan and the hints. Must not know `Settings`.

use super::rows::ROWS;

/// A section of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// Above the first header.
    Root,
    /// `[listen]`
    Listen,
    /// `[pool]`
    Pool,
    /// `[[pool.rule]]`
    PoolRule,
    /// `[auth]`
    Auth,
    /// `[tls]`
    Tls,
    /// `[monitor]`
    Monitor,
    /// `[[node]]`
    Node,
    /// `[node.health_check]`
    NodeHealthCheck,
    /// `[routing]`
    Routing,
    /// `[health_check]`
    HealthCheck,
    /// `[failover]`
    Failover,
    /// `[recovery]`
    Recovery,
    /// `[pcp]`
    Pcp,
    /// `[web]`
    Web,
    /// `[watchdog]`
    Watchdog,
    /// `[[watchdog.peer]]`
    WatchdogPeer,
    /// `[log]`
    Log,
}

/// How a section stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[name]`, and its defaults hold without it.
    Always,
    /// `[name]`, and what it configures is off without it.
    Optional,
    /// `[[name]]`, any number of times.
    Many,
}

/// A section's row.
#[derive(Debug)]
pub(super) struct SectionRow {
    pub(super) section: Section,
    /// The section that it stands in.
    pub(super) parent: Section,
    /// Its key there.
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    /// First line of its place in the sample.
    pub(super) doc: &'static str,
}

/// Type, unit and range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number from … to ….
    Int(i64, i64),
    /// A number from … to ….
    Float(f64, f64),
    /// A text with a unit: us, ms, s, min, h, d; from … to … milliseconds.
    Duration(u64, u64),
    /// A text with a unit: B, kB, MB, GB, TB (powers of 1024); at most … bytes.
    Size(u64),
    /// A text that is not empty.
    Text,
    /// A path; relative ones start at the file's folder.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address.
    Address,
    /// A list of texts.
    Texts,
    /// A list of paths.
    Paths,
    /// A list of these words.
    Words(&'static [&'static str]),
    /// A list of regular expressions.
    Patterns,
    /// A list of `pattern:target` or `pattern:target(ratio)`.
    Redirects,
}

/// What holds when the file does not name the parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Presence {
    /// This, spelled as in the file.
    Default(&'static str),
    /// Nothing; this stands in the sample as an example.
    Unset(&'static str),
    /// The file is refused; this stands in the sample.
    Required(&'static str),
}

/// What a changed value needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// A reload; holds at once.
    Live,
    /// A reload; holds for sessions that start later.
    NewSessions,
    /// A new start of the process.
    Restart,
}

/// One parameter.
#[derive(Debug)]
pub struct Row {
    /// Where it stands.
    pub section: Section,
    /// Its key there.
    pub name: &'static str,
    /// Type, unit and range.
    pub kind: Kind,
    /// Its default.
    pub presence: Presence,
    /// What a change needs.
    pub reload: Reload,
    /// What pgpool-II calls it, without a node's number; several names are separated by spaces.
    pub pgpool: &'static str,
    /// What it does, for the sample.
    pub doc: &'static str,
}

const fn section(section: Section, parent: Section, key: &'static str, shape: Shape, doc: &'static str) -> SectionRow {
    SectionRow { section, parent, key, shape, doc }
}

/// All sections in the order of the sample; what is nested follows its parent.
pub(super) const SECTIONS: &[SectionRow] = &[
    section(Section::Listen, Section::Root, "listen", Shape::Always, "The port for clients."),
    section(Section::Pool, Section::Root, "pool", Shape::Always, "Server connections shared by the clients."),
    section(
        Section::PoolRule,
        Section::Pool,
        "rule",
        Shape::Many,
        "Exceptions for a database, a user, or both; the first that matches counts.",
    ),
    section(Section::Auth, Section::Root, "auth", Shape::Always, "Who may log in."),
    section(Section::Tls, Section::Root, "tls", Shape::Optional, "TLS for clients; off without this section."),
    section(
        Section::Monitor,
        Section::Root,
        "monitor",
        Shape::Always,
        "The role that pgherd itself uses: health checks, roles, lag, catalogs, promotion.",
    ),
    section(Section::Node, Section::Root, "node", Shape::Many, "One per server."),
    section(
        Section::NodeHealthCheck,
        Section::Node,
        "health_check",
        Shape::Optional,
        "Overrides of [health_check] for this server.",
    ),
    section(Section::Routing, Section::Root, "routing", Shape::Always, "Which statement goes to which server."),
    section(Section::HealthCheck, Section::Root, "health_check", Shape::Always, "How each server is watched."),
    section(Section::Failover, Section::Root, "failover", Shape::Always, "What happens when a server dies."),
    section(Section::Recovery, Section::Root, "recovery", Shape::Always, "Online recovery of a server."),
    section(Section::Pcp, Section::Root, "pcp", Shape::Always, "The administration port; closed without a users_file."),
    section(
        Section::Web,
        Section::Root,
        "web",
        Shape::Optional,
        "Metrics, health and console over HTTP; off without this section.",
    ),
    section(
        Section::Watchdog,
        Section::Root,
        "watchdog",
        Shape::Optional,
        "Partner proxies and the address they share; off without this section.",
    ),
    section(Section::WatchdogPeer, Section::Watchdog, "peer", Shape::Many, "The others, one each."),
    section(Section::Log, Section::Root, "log", Shape::Always, "What is logged, and how."),
];

impl Section {
    pub(super) fn row(self) -> Option<&'static SectionRow> {
        SECTIONS.iter().find(|row| row.section == self)
    }

    /// The dotted key: `watchdog.peer`; empty for the root.
    pub fn path(self) -> String {
        match self.row() {
            None => String::new(),
            Some(row) if row.parent == Self::Root => row.key.to_owned(),
            Some(row) => format!("{}.{}", row.parent.path(), row.key),
        }
    }

    /// The header as the file spells it: `[listen]`, `[[node]]`.
    pub fn header(self) -> String {
        match self.row() {
            None => "the head of the file".to_owned(),
            Some(row) if row.shape == Shape::Many => format!("[[{}]]", self.path()),
            Some(_) => format!("[{}]", self.path()),
        }
    }

    /// The section whose rows describe this one's keys.
    fn described_by(self) -> Self {
        if self == Self::NodeHealthCheck { Self::HealthCheck } else { self }
    }

    /// Its parameters, in the order of the sample.
    pub fn rows(self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(move |row| row.section == self.described_by())
    }

    /// The sections right below it.
    pub(super) fn children(self) -> impl Iterator<Item = &'static SectionRow> {
        SECTIONS.iter().filter(move |row| row.parent == self)
    }
}

/// All parameters, in the order of the sample.
pub fn all() -> &'static [Row] {
    ROWS
}

impl Row {
    /// The dotted key: `listen.port`.
    pub fn key(&self) -> String {
        if self.section == Section::Root {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section.path(), self.name)
        }
    }

    /// Where to write it: `[listen] port`.
    pub(super) fn place(&self) -> String {
        if self.section == Section::Root {
            format!("`{}` at the head of the file", self.name)
        } else {
            format!("`{}` in {}", self.name, self.section.header())
        }
    }
}
