//! A standby whose data folder is lost comes back by one command (SCENARIOS S10): the sample hook, on the proxy's host, reaches the standby's
//! host over ssh.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::clients::Clients;
use crate::common::{self, sshd::Sshd};
use crate::table;
use crate::world::{HOSTS, Setup, World};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hooks");
/// The standby.
const LOST: usize = 1;

/// The sample hooks in the proxy's folder, with settings for these hosts.
fn install(world: &World, ssh: &Sshd) {
    let folder = world.proxy.folder().join("hooks");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["recover.sh", "reach.sh", "on-node.sh"] {
        std::fs::copy(Path::new(SAMPLES).join(name), folder.join(name)).expect("copied");
    }
    let settings = std::fs::read_to_string(Path::new(SAMPLES).join("hooks.conf")).expect("read");
    let programs = world.cluster.programs().folder().display();
    let own = format!("SSH_USER=root\nSSH_OPTIONS=\"{}\"\nPGBIN={programs}\n", ssh.options());
    std::fs::write(folder.join("hooks.conf"), format!("{settings}\n{own}")).expect("written");
}

#[test]
fn s10_nobody_notices_a_standby_that_is_recovered_by_command() {
    let Some(sshd) = Sshd::installed() else {
        return common::skip("S10 by command", "it takes root and Debian's openssh-server");
    };
    let failover = "promote = \"builtin\"\n[recovery]\ncommand = \"hooks/recover.sh %d %h %p %D %H %r\"\n\
                    timeout = \"60s\"\ncopy_timeout = \"60s\"";
    let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
    let Some(world) = World::start(&Setup { failover, settings, ..Setup::default() }) else { return };
    let host = world.net.host(world.name(LOST));
    let ssh = Sshd::start(&sshd, &world.cluster.folder().join("ssh"), &format!("{}:22", HOSTS[LOST].1), |command| {
        host.inside(|| command.spawn().expect("it starts"))
    });
    install(&world, &ssh);

    world.server(LOST).kill9().expect("killed");
    // As behind a new disk.
    let data = world.server(LOST).data();
    std::fs::remove_dir_all(data).expect("removed");
    std::fs::create_dir(data).expect("made");
    world.cluster.owner().take(data).expect("its owner's");
    world.wait_status(&[(LOST, "down")]);

    let clients = Clients::start(&world);
    let begun = Instant::now();
    let said = world.order(&["recovery_node", &LOST.to_string()]).expect("recovered");
    let took = begun.elapsed();
    assert!(said.contains("streams from the primary"), "{said}");
    world.wait_follows(LOST, 0);
    clients.go_on(Duration::from_secs(1));
    let told = world.last_event("recovery_copied").expect("it was told");
    assert!(told.contains("copied "), "there was nothing to rewind: {told}");
    let report = clients.stop(&world);
    report.unharmed();
    let (bound, gap) = (Duration::from_secs(1), report.gap());
    table::line(
        "S10",
        "standby's data folder lost; `pgherd pcp recovery_node` brings it back, by `conf/hooks/recover.sh` over ssh",
        &format!("there again {} after the command; gap {}", table::seconds(took), table::seconds(gap)),
        &format!("{} s", bound.as_secs_f64()),
        &report.to_string(),
    );
    assert!(gap <= bound, "S10: a gap of {gap:?}, at most {bound:?}\n{report}");
}
