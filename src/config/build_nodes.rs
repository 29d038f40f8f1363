//! `[[node]]`: each one, and all of them together.

use super::build::{Build, health_check};
use super::problem::Problem;
use super::raw::Table;
use super::read::Reader;
use super::settings::{HealthCheck, Node, NodeFlags, NodeRole, SslMode};
use super::table::Section;
use crate::cluster::NodeId;

pub(super) fn nodes(build: &mut Build, root: &Table, health: HealthCheck) -> Vec<Node> {
    let tables: Vec<_> = root.all(Section::Node).collect();
    if tables.is_empty() {
        let example = "write one per server: [[node]] id = 0, host = \"127.0.0.1\", port = 5432";
        build.complain(None, "there is no [[node]]", example);
    }
    let mut nodes: Vec<_> = tables.iter().map(|table| node(build, table, health)).collect();
    for (later, node) in nodes.iter().enumerate() {
        for (first, other) in nodes[..later].iter().enumerate() {
            let readers = (Reader::of(tables[later]), Reader::of(tables[first]));
            pair(build, (readers.0, node), (readers.1, other));
        }
    }
    nodes.sort_by_key(|node| node.id);
    nodes
}

/// What two servers must not have in common.
fn pair(build: &mut Build, later: (Reader<'_>, &Node), first: (Reader<'_>, &Node)) {
    let mut clash = |name, message: &str| build.clash((later.0, name), (first.0, name), message);
    if later.1.id == first.1.id {
        clash("id", "two nodes have the same `id`");
    } else if later.1.name == first.1.name {
        clash("name", "two nodes have the same `name`");
    }
    if (&later.1.host, later.1.port) == (&first.1.host, first.1.port) {
        clash("host", "two nodes are the same server");
    }
    if fixed_primary(later.1) && fixed_primary(first.1) {
        let name = |node: &Node| if node.role == NodeRole::Primary { "role" } else { "flags" };
        build.clash((later.0, name(later.1)), (first.0, name(first.1)), "only one node can be the primary for ever");
    }
}

fn fixed_primary(node: &Node) -> bool {
    node.role == NodeRole::Primary || node.flags.always_primary
}

fn node(build: &mut Build, table: &Table, health: HealthCheck) -> Node {
    let reader = Reader::of(table);
    let id = NodeId(reader.int("id"));
    let name = reader.opt_text("name").unwrap_or_else(|| format!("node{id}"));
    let host = reader.text("host");
    let port = reader.int("port");
    let node = Node {
        id,
        port,
        weight: reader.float("weight"),
        max_connections: reader.int("max_connections"),
        role: reader.word("role"),
        sslmode: reader.word("sslmode"),
        ca: build.opt_path(&reader, "ca"),
        application_name: reader.opt_text("application_name").unwrap_or_else(|| name.clone()),
        replication_host: reader.opt_text("replication_host").unwrap_or_else(|| host.clone()),
        replication_port: reader.opt_int("replication_port").unwrap_or(port),
        data_directory: reader.opt_text("data_directory"),
        flags: flags(build, &reader),
        health_check: match table.one(Section::NodeHealthCheck) {
            Some(own) => health_check(&Reader::of(own), Some(health)),
            None => health,
        },
        name,
        host,
    };
    check(build, reader, &node);
    node
}

/// Contradictions within one node.
fn check(build: &mut Build, reader: Reader<'_>, node: &Node) {
    if node.role == NodeRole::Standby && node.flags.always_primary {
        build.clash((reader, "role"), (reader, "flags"), "a standby for ever cannot be ALWAYS_PRIMARY");
    }
    let verifies = matches!(node.sslmode, SslMode::VerifyCa | SslMode::VerifyFull);
    if verifies && node.ca.is_none() {
        let message = format!("`sslmode = \"{}\"` needs `ca`", node.sslmode);
        build.complain(reader.span("sslmode"), message, "name the file with whoever signed the server's certificate");
    }
    let insists = verifies || node.sslmode == SslMode::Require;
    if insists && node.host.starts_with('/') {
        build.clash((reader, "sslmode"), (reader, "host"), "there is no TLS on a Unix socket");
    }
    if node.ca.is_some() && !insists {
        let message = format!("`ca` is never looked at with `sslmode = \"{}\"`", node.sslmode);
        build.clash((reader, "ca"), (reader, "sslmode"), message);
    }
}

fn flags(build: &mut Build, reader: &Reader<'_>) -> NodeFlags {
    let items = reader.items("flags");
    let find = |word: &str| items.iter().find(|item| item.text == word);
    if let (Some(allow), Some(disallow)) = (find("ALLOW_TO_FAILOVER"), find("DISALLOW_TO_FAILOVER")) {
        let problem = Problem::at(allow.span.clone(), "a node cannot have both of these flags");
        build.problems.push(problem.also(disallow.span.clone(), "disagrees with this"));
    }
    NodeFlags {
        disallow_to_failover: find("DISALLOW_TO_FAILOVER").is_some(),
        always_primary: find("ALWAYS_PRIMARY").is_some(),
    }
}
