//! `[failover]` and `[watchdog]`.

use super::build::Build;
use super::problem::Problem;
use super::raw::Table;
use super::read::Reader;
use super::secret::Secret;
use super::settings::{
    Arbiter, Failover, FailoverCommands, Fence, OnQuorumLoss, Peer, Promote, VipOn, Watchdog, WatchdogCommands,
};
use super::table::Section;

pub(super) fn failover(build: &mut Build, reader: Reader<'_>) -> Failover {
    let failover = Failover {
        promote: reader.word("promote"),
        hold_timeout: reader.duration("hold_timeout"),
        max_held: reader.int("max_held"),
        max_held_memory: reader.size("max_held_memory"),
        max_lag_on_failover: reader.opt_size("max_lag_on_failover"),
        fence: reader.word("fence"),
        allow_data_loss: reader.flag("allow_data_loss"),
        on_sync_shortage: reader.word("on_sync_shortage"),
        on_quorum_loss: reader.word("on_quorum_loss"),
        auto_failback: reader.flag("auto_failback"),
        auto_failback_interval: reader.duration("auto_failback_interval"),
        commands: FailoverCommands {
            failover: reader.opt_text("failover_command"),
            follow_primary: reader.opt_text("follow_primary_command"),
            failback: reader.opt_text("failback_command"),
            fence: reader.opt_text("fence_command"),
            demote: reader.opt_text("demote_command"),
            timeout: reader.duration("command_timeout"),
            folder: build.folder().to_owned(),
        },
        state_directory: build
            .opt_path(&reader, "state_directory")
            .unwrap_or_else(|| build.folder().join("pgherd.state")),
    };
    if failover.promote == Promote::Command && failover.commands.failover.is_none() {
        let message = "`promote = \"command\"` needs `failover_command`";
        build.complain(reader.span("promote"), message, "or let pgherd promote: promote = \"builtin\"");
    }
    if failover.promote != Promote::Never && failover.on_quorum_loss == OnQuorumLoss::HoldCourse {
        let message = "a proxy that holds its course without a majority must not promote: there would be two primaries";
        build.clash((reader, "on_quorum_loss"), (reader, "promote"), message);
    }
    if failover.fence == Fence::BestEffort && failover.commands.fence.is_none() {
        let message = "`fence = \"best_effort\"` is about `fence_command`, which is not set";
        build.complain(reader.span("fence"), message, "set `fence_command`, or leave `fence` out");
    }
    failover
}

pub(super) fn watchdog(build: &mut Build, table: &Table) -> Watchdog {
    let reader = Reader::of(table);
    let watchdog = Watchdog {
        name: reader.text("name"),
        address: reader.text("address"),
        port: reader.int("port"),
        heartbeat_port: reader.int("heartbeat_port"),
        priority: reader.int("priority"),
        virtual_ip: reader.opt_address("virtual_ip"),
        vip_on: vip_on(build, reader),
        commands: WatchdogCommands {
            if_up: reader.opt_text("if_up_cmd"),
            if_down: reader.opt_text("if_down_cmd"),
            arping: reader.opt_text("arping_cmd"),
            trusted: reader.opt_text("trusted_server_command"),
            escalation: reader.opt_text("escalation_command"),
            de_escalation: reader.opt_text("de_escalation_command"),
            timeout: reader.duration("command_timeout"),
            folder: build.folder().to_owned(),
        },
        monitoring_interfaces: reader.texts("monitoring_interfaces_list"),
        lease: reader.duration("lease"),
        arbiter: reader.word("arbiter"),
        trusted_servers: reader.texts("trusted_servers"),
        key: build.secret(&reader, "key_file").unwrap_or_else(|| Secret::new("")),
        state_directory: build.path(&reader, "state_directory"),
        peers: table.all(Section::WatchdogPeer).map(|table| peer(build, table)).collect(),
    };
    if watchdog.arbiter == Arbiter::Trusted && watchdog.trusted_servers.is_empty() {
        build.clash((reader, "arbiter"), (reader, "trusted_servers"), "`arbiter = \"trusted\"` needs trusted servers");
    }
    if watchdog.arbiter == Arbiter::Witness && watchdog.peers.len() == 1 {
        let message = "`arbiter = \"witness\"` needs a third member: one [[watchdog.peer]] more, with `witness = true`";
        build.clash((reader, "arbiter"), (reader, "name"), message);
    }
    if watchdog.virtual_ip.is_some_and(|address| address.is_ipv6()) && watchdog.vip_on == VipOn::Tun {
        let message = "neighbours are not answered for an IPv6 address on a TUN device; write `vip_on = \"interface\"`";
        build.clash((reader, "virtual_ip"), (reader, "vip_on"), message);
    }
    if watchdog.peers.is_empty() {
        let hint = "name the other proxies, each with [[watchdog.peer]] name = …, host = …";
        build.complain(Some(table.span.clone()), "a watchdog without [[watchdog.peer]] watches nobody", hint);
    }
    names(build, table);
    commands(build, reader, &watchdog);
    watchdog
}

/// Programs can be run, and what they are for is there.
fn commands(build: &mut Build, reader: Reader<'_>, watchdog: &Watchdog) {
    for (name, command) in watchdog.commands.all() {
        if let Err(why) = watchdog.words(name, command, 1) {
            let hint = match name {
                "trusted_server_command" => "%h is the trusted server, %% a percent sign",
                _ => "$_IP_$ is virtual_ip, $_IF_$ the interface of `vip_on = \"interface\"`, $_LIFETIME_$ if_up_cmd's",
            };
            build.complain(reader.span(name), format!("`{name}`: {why}"), hint);
        }
    }
    let commands = &watchdog.commands;
    for (one, other, name, missing) in [
        (&commands.if_up, &commands.if_down, "if_up_cmd", "if_down_cmd"),
        (&commands.if_down, &commands.if_up, "if_down_cmd", "if_up_cmd"),
    ] {
        if one.is_some() && other.is_none() {
            build.complain(reader.span(name), format!("`{name}` needs `{missing}`"), "set both, or none");
        }
    }
    for (name, set) in [("if_up_cmd", &commands.if_up), ("arping_cmd", &commands.arping)] {
        if set.is_some() && watchdog.virtual_ip.is_none() {
            build.complain(reader.span(name), format!("`{name}` is about `virtual_ip`, which is not set"), "set it");
        }
    }
    if commands.trusted.is_some() && watchdog.trusted_servers.is_empty() {
        let message = "`trusted_server_command` is about `trusted_servers`, which is empty";
        build.complain(reader.span("trusted_server_command"), message, "name them, or leave it out");
    }
    if commands.if_up.is_some() && watchdog.vip_on == VipOn::Tun {
        let message = "`if_up_cmd` works on an interface that both it and pgherd know: write `vip_on = \"interface\"`";
        build.clash((reader, "if_up_cmd"), (reader, "vip_on"), message);
    }
}

fn vip_on(build: &mut Build, reader: Reader<'_>) -> VipOn {
    let wants = reader.text("vip_on") == "interface";
    match reader.opt_text("interface") {
        Some(interface) if wants => VipOn::Interface(interface),
        Some(_) => {
            build.clash((reader, "interface"), (reader, "vip_on"), "`interface` is for `vip_on = \"interface\"`");
            VipOn::Tun
        }
        None => {
            if wants {
                let message = "`vip_on = \"interface\"` needs `interface`";
                build.complain(reader.span("vip_on"), message, "name the interface, as in interface = \"eth0\"");
            }
            VipOn::Tun
        }
    }
}

fn peer(build: &mut Build, table: &Table) -> Peer {
    let reader = Reader::of(table);
    for item in reader.items("heartbeat") {
        let parts = item.text.rsplit_once(':');
        if !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)) {
            build.complain(
                Some(item.span),
                format!("bad address `{}`", item.text),
                "write \"host:port\", as in \"192.0.2.2:9694\"",
            );
        }
    }
    Peer {
        name: reader.text("name"),
        host: reader.text("host"),
        port: reader.int("port"),
        witness: reader.flag("witness"),
        heartbeat: reader.texts("heartbeat"),
    }
}

/// Each proxy has a name of its own.
fn names(build: &mut Build, table: &Table) {
    let mut readers = vec![Reader::of(table)];
    readers.extend(table.all(Section::WatchdogPeer).map(Reader::of));
    for (index, later) in readers.iter().enumerate() {
        let same = readers[..index].iter().find(|first| first.text("name") == later.text("name"));
        if let (Some(here), Some(there)) = (later.span("name"), same.and_then(|first| first.span("name"))) {
            build.problems.push(Problem::at(here, "two proxies have the same name").also(there, "disagrees with this"));
        }
    }
}
