//! Said → meant: relates the values of a file to one another and makes [`Settings`] of them. Reads no file but the
//! secrets that the settings name.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::diff::Effective;
use super::problem::Problem;
use super::raw::Table;
use super::read::Reader;
use super::secret::{self, Secret};
use super::settings::{
    Auth, HealthCheck, Listen, Log, Logged, Monitor, Pcp, Pool, PoolRule, Recovery, Settings, Tls, Web,
};
use super::table::{Presence, Section};
use super::{build_ha, build_nodes, build_routing};

/// What the parts of the builder share.
pub(super) struct Build {
    /// Relative paths start here.
    folder: PathBuf,
    pub(super) problems: Vec<Problem>,
}

/// A parameter, for a complaint.
pub(super) type Place<'a> = (Reader<'a>, &'a str);

impl Build {
    /// Complains about two values that cannot both be meant, showing both where the file gives them.
    pub(super) fn clash(&mut self, first: Place<'_>, second: Place<'_>, message: impl Into<String>) {
        let spans = (first.0.span(first.1), second.0.span(second.1));
        let (problem, silent) = match spans {
            (Some(here), Some(there)) => (Problem::at(here, message).also(there, "disagrees with this"), None),
            (Some(here), None) => (Problem::at(here, message), Some(second)),
            (None, Some(here)) => (Problem::at(here, message), Some(first)),
            (None, None) => (Problem::whole(message), None),
        };
        let default = silent.and_then(|(reader, name)| Some((name, reader.value(name)?.show())));
        self.problems.push(match default {
            Some((name, value)) => problem.hint(format!("`{name}` is {value} unless the file says otherwise")),
            None => problem,
        });
    }

    pub(super) fn complain(&mut self, span: Option<Range<usize>>, message: impl Into<String>, hint: &str) {
        let problem = span.map_or_else(|| Problem::whole(""), |span| Problem::at(span, ""));
        self.problems.push(Problem { message: message.into(), ..problem }.hint(hint));
    }

    /// Where relative paths start.
    pub(super) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub(super) fn opt_path(&self, reader: &Reader<'_>, name: &str) -> Option<PathBuf> {
        reader.opt_text(name).map(|text| self.folder.join(text))
    }

    pub(super) fn path(&self, reader: &Reader<'_>, name: &str) -> PathBuf {
        self.folder.join(reader.text(name))
    }

    fn paths(&self, reader: &Reader<'_>, name: &str) -> Vec<PathBuf> {
        reader.texts(name).iter().map(|text| self.folder.join(text)).collect()
    }

    /// The first line of the file that the parameter names.
    pub(super) fn secret(&mut self, reader: &Reader<'_>, name: &str) -> Option<Secret> {
        let path = self.opt_path(reader, name)?;
        match secret::read(&path) {
            Ok(secret) => Some(secret),
            Err(refusal) => {
                self.complain(reader.span(name), format!("{}: {}", path.display(), refusal.what), refusal.right);
                None
            }
        }
    }

    /// Complains about what a section lacks.
    fn require(&mut self, table: &Table) {
        for row in table.section.rows().filter(|row| matches!(row.presence, Presence::Required(_))) {
            if !table.values.contains_key(row.name) {
                let message = format!("{} lacks `{}`", table.section.header(), row.name);
                self.problems.push(Problem::at(table.span.clone(), message).hint(row.doc));
            }
        }
        for child in &table.children {
            self.require(child);
        }
    }
}

/// Makes settings of a file that was read without a problem.
pub(super) fn settings(root: &Table, folder: &Path) -> Result<Settings, Vec<Problem>> {
    let mut build = Build { folder: folder.to_owned(), problems: Vec::new() };
    build.require(root);
    if !build.problems.is_empty() {
        return Err(build.problems);
    }
    let section = |section| Reader::below(root, section);
    let health = health_check(&section(Section::HealthCheck), None);
    let listen = listen(&mut build, section(Section::Listen));
    let nodes = build_nodes::nodes(&mut build, root, health);
    let settings = Settings {
        pid_file: build.opt_path(&Reader::of(root), "pid_file").unwrap_or_else(|| default_pid_file(&listen)),
        pool: pool(&mut build, root),
        auth: auth(&build, section(Section::Auth)),
        tls: root.one(Section::Tls).map(|table| tls(&build, Reader::of(table))),
        monitor: monitor(&mut build, section(Section::Monitor)),
        routing: build_routing::routing(&mut build, section(Section::Routing), &nodes),
        health_check: health,
        failover: build_ha::failover(&mut build, section(Section::Failover)),
        recovery: recovery(&mut build, section(Section::Recovery)),
        pcp: pcp(&build, section(Section::Pcp)),
        web: root.one(Section::Web).map(|table| web(Reader::of(table))),
        watchdog: root.one(Section::Watchdog).map(|table| build_ha::watchdog(&mut build, table)),
        log: log(section(Section::Log)),
        effective: Effective::of(root),
        listen,
        nodes,
    };
    ports(&mut build, root);
    if build.problems.is_empty() { Ok(settings) } else { Err(build.problems) }
}

fn default_pid_file(listen: &Listen) -> PathBuf {
    let folder = listen.unix_socket_directories.first().map_or(Path::new("/tmp"), PathBuf::as_path);
    folder.join(format!(".s.PGHERD.{}.pid", listen.port))
}

fn listen(build: &mut Build, reader: Reader<'_>) -> Listen {
    let listen = Listen {
        addresses: reader.texts("addresses"),
        port: reader.int("port"),
        unix_socket_directories: build.paths(&reader, "unix_socket_directories"),
        max_clients: reader.int("max_clients"),
        authentication_timeout: reader.duration("authentication_timeout"),
        threads: reader.int("threads"),
        io_uring: reader.flag("io_uring"),
        backlog: reader.int("backlog"),
        client_idle_limit: reader.duration("client_idle_limit"),
        stop_timeout: reader.duration("stop_timeout"),
    };
    if listen.addresses.is_empty() && listen.unix_socket_directories.is_empty() {
        let places = ((reader, "addresses"), (reader, "unix_socket_directories"));
        build.clash(places.0, places.1, "no address and no Unix socket: nobody could connect");
    }
    listen
}

fn pool(build: &mut Build, root: &Table) -> Pool {
    let reader = Reader::below(root, Section::Pool);
    let tables = rule_tables(root);
    let pool = Pool {
        mode: reader.word("mode"),
        size: reader.int("size"),
        min_size: reader.int("min_size"),
        queue_timeout: reader.duration("queue_timeout"),
        idle_timeout: reader.duration("idle_timeout"),
        max_lifetime: reader.duration("max_lifetime"),
        max_pinned: reader.opt_int("max_pinned"),
        max_prepared_statements: reader.int("max_prepared_statements"),
        opaque: reader.word("opaque"),
        rules: tables.iter().map(|table| pool_rule(&Reader::of(table))).collect(),
    };
    if pool.min_size > pool.size {
        build.clash((reader, "min_size"), (reader, "size"), "`min_size` is more than `size`");
    }
    if pool.max_pinned.is_some_and(|pinned| pinned > pool.size) {
        build.clash((reader, "max_pinned"), (reader, "size"), "`max_pinned` is more than `size`");
    }
    for (table, rule) in tables.iter().zip(&pool.rules) {
        let here = Reader::of(table);
        let size = if rule.size.is_some() { here } else { reader };
        if rule.min_size.is_some_and(|min| min > rule.size.unwrap_or(pool.size)) {
            build.clash((here, "min_size"), (size, "size"), "`min_size` is more than `size`");
        }
    }
    shadowed(build, &tables, &pool.rules);
    pool
}

fn rule_tables(root: &Table) -> Vec<&Table> {
    root.one(Section::Pool).into_iter().flat_map(|pool| pool.all(Section::PoolRule)).collect()
}

/// A rule behind one that matches all of its logins would never be used.
fn shadowed(build: &mut Build, tables: &[&Table], rules: &[PoolRule]) {
    for (later, rule) in rules.iter().enumerate() {
        let covers = |first: &PoolRule| {
            (first.database.is_none() || first.database == rule.database)
                && (first.user.is_none() || first.user == rule.user)
        };
        if let Some(first) = rules[..later].iter().position(covers) {
            let problem = Problem::at(
                tables[later].span.clone(),
                "this rule is never used: an earlier one matches all of its logins",
            );
            build.problems.push(problem.also(tables[first].span.clone(), "this one"));
        }
    }
}

fn pool_rule(reader: &Reader<'_>) -> PoolRule {
    PoolRule {
        database: reader.opt_text("database"),
        user: reader.opt_text("user"),
        mode: reader.opt_word("mode"),
        size: reader.opt_int("size"),
        min_size: reader.opt_int("min_size"),
        queue_timeout: reader.opt_duration("queue_timeout"),
    }
}

fn auth(build: &Build, reader: Reader<'_>) -> Auth {
    Auth {
        hba_file: build.opt_path(&reader, "hba_file"),
        users_file: build.opt_path(&reader, "users_file"),
        admin_users: reader.texts("admin_users"),
        stats_users: reader.texts("stats_users"),
    }
}

fn tls(build: &Build, reader: Reader<'_>) -> Tls {
    Tls {
        cert: build.path(&reader, "cert"),
        key: build.path(&reader, "key"),
        client_ca: build.opt_path(&reader, "client_ca"),
    }
}

fn monitor(build: &mut Build, reader: Reader<'_>) -> Monitor {
    Monitor {
        user: reader.text("user"),
        password: build.secret(&reader, "password_file"),
        database: reader.text("database"),
    }
}

/// `[health_check]`, or `[node.health_check]` laid over it.
pub(super) fn health_check(reader: &Reader<'_>, base: Option<HealthCheck>) -> HealthCheck {
    // Without a base the row's default counts; with one only what the section itself says.
    let own = |name: &str| base.is_none() || reader.given(name).is_some();
    let mut check = base.unwrap_or(HealthCheck {
        period: reader.duration("period"),
        timeout: reader.duration("timeout"),
        max_retries: reader.int("max_retries"),
        retry_delay: reader.duration("retry_delay"),
        successes: reader.int("successes"),
    });
    if own("period") {
        check.period = reader.duration("period");
    }
    if own("timeout") {
        check.timeout = reader.duration("timeout");
    }
    if own("max_retries") {
        check.max_retries = reader.int("max_retries");
    }
    if own("retry_delay") {
        check.retry_delay = reader.duration("retry_delay");
    }
    if own("successes") {
        check.successes = reader.int("successes");
    }
    check
}

fn recovery(build: &mut Build, reader: Reader<'_>) -> Recovery {
    let recovery = Recovery {
        user: reader.opt_text("user"),
        password: build.secret(&reader, "password_file"),
        database: reader.text("database"),
        first_stage_command: reader.opt_text("first_stage_command"),
        command: reader.opt_text("command"),
        copy_timeout: reader.duration("copy_timeout"),
        timeout: reader.duration("timeout"),
    };
    if recovery.command.is_some() && recovery.first_stage_command.is_some() {
        let message = "`command` replaces the stage commands of pgpool's extension; both are given";
        build.clash((reader, "command"), (reader, "first_stage_command"), message);
    }
    recovery
}

fn pcp(build: &Build, reader: Reader<'_>) -> Pcp {
    Pcp {
        addresses: reader.texts("addresses"),
        port: reader.int("port"),
        unix_socket_directories: build.paths(&reader, "unix_socket_directories"),
        users_file: build.opt_path(&reader, "users_file"),
        layout: reader.word("layout"),
    }
}

fn web(reader: Reader<'_>) -> Web {
    Web { address: reader.text("address"), port: reader.int("port") }
}

fn log(reader: Reader<'_>) -> Log {
    Log {
        level: reader.word("level"),
        format: reader.word("format"),
        of: Logged { statements: reader.flag("statements"), connections: reader.flag("connections") },
        statement_sample: reader.float("statement_sample"),
        slow_statements: reader.duration("slow_statements"),
        hide_literals: reader.flag("hide_literals"),
        timed_every: reader.int("timed_every"),
    }
}

/// Two listeners of ours on one TCP port.
fn ports(build: &mut Build, root: &Table) {
    let optional = |section| root.one(section).map(Reader::of);
    let mut readers = vec![Reader::below(root, Section::Listen)];
    let pcp = Reader::below(root, Section::Pcp);
    readers.extend(pcp.given("users_file").map(|_| pcp));
    readers.extend(optional(Section::Web));
    readers.extend(optional(Section::Watchdog));
    for (index, later) in readers.iter().enumerate() {
        let same = |first: &&Reader<'_>| first.int::<u16>("port") == later.int::<u16>("port");
        if let Some(first) = readers[..index].iter().find(same) {
            let message = format!("{} and {} are on the same port", first.section.header(), later.section.header());
            build.clash((*later, "port"), (*first, "port"), message);
        }
    }
}
