//! Roles that the configuration fixes: a logical replica is balanced over like a standby, and nobody takes anybody's place.

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::folder::Folder;
use pgherd::app::demo::ports::PortLock;
use pgherd::app::{self, Running};
use pgherd::cluster::{NodeId, Role, Status, Writes};
use pgherd::config::Settings;
use pgherd::failover::engine::Order;

use crate::common::raw::RawClient;
use crate::common::{self, eventually};

fn cluster() -> Option<Cluster> {
    let settings = vec![("wal_level".to_owned(), "logical".to_owned())];
    match Cluster::start(&Options { standbys: 0, settings, ..Options::default() }) {
        Ok(cluster) => Some(cluster),
        Err(Error::NoPostgres) => {
            common::skip("failover", "no PostgreSQL programs of version 13 or later");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn status(running: &Running, id: u16) -> Option<(Role, Status)> {
    let view = running.cluster().view();
    view.node(NodeId(id)).map(|node| (node.role, node.status))
}

#[test]
fn a_logical_replica_is_read_from_and_never_written_to_nor_promoted() {
    let (Some(first), Some(second)) = (cluster(), cluster()) else { return };
    let (primary, replica) = (first.primary(), second.primary());
    let sql = |server: &app::demo::server::Server, text: &str| server.psql("postgres", text).expect("it runs");
    for server in [primary, replica] {
        sql(server, "CREATE TABLE t (n int PRIMARY KEY)");
    }
    sql(primary, "CREATE PUBLICATION p FOR TABLE t");
    let from = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", primary.port());
    sql(replica, &format!("CREATE SUBSCRIPTION s CONNECTION '{from}' PUBLICATION p"));
    let folder = Folder::new(first.owner()).expect("a folder");
    let port = PortLock::any().expect("a free port");
    let text = format!(
        "[listen]\naddresses = [\"127.0.0.1\"]\nport = {}\nunix_socket_directories = []\n[auth]\nhba_file = \"hba.conf\"\n\
         [monitor]\nuser = \"postgres\"\n[routing]\nconsistency = \"eventual\"\nstatement_level = true\n\
         [failover]\npromote = \"builtin\"\nhold_timeout = \"2s\"\n\
         [[node]]\nid = 0\nhost = \"127.0.0.1\"\nport = {}\nrole = \"primary\"\nweight = 0\n\
         [[node]]\nid = 1\nhost = \"127.0.0.1\"\nport = {}\nrole = \"standby\"\n",
        port.port(),
        primary.port(),
        replica.port()
    );
    std::fs::write(folder.path().join("hba.conf"), "host all all 127.0.0.1/32 trust\n").expect("written");
    let path = folder.path().join("pgherd.toml");
    std::fs::write(&path, text).expect("written");
    let running = app::start(Settings::load(&path).expect("a configuration")).expect("it starts");
    eventually("both are used", || {
        status(&running, 0) == Some((Role::Primary, Status::Up))
            && status(&running, 1) == Some((Role::Standby, Status::Up))
    });
    let mut client = RawClient::login(port.port(), "postgres");
    client.query("INSERT INTO t VALUES (1)");
    eventually("the row is replicated", || sql(replica, "SELECT count(*) FROM t").trim() == "1");
    // What only the replica has tells who was asked.
    sql(replica, "INSERT INTO t VALUES (2)");
    eventually("reads go to the replica", || client.values("SELECT count(*) FROM t") == ["2"]);
    primary.kill9().expect("killed");
    eventually("writes are refused", || matches!(running.cluster().view().writes, Writes::Refused { .. }));
    assert_eq!(running.cluster().view().primary, Some(NodeId(0)));
    let refused = running.order(Order::Promote(NodeId(1))).expect_err("its role is fixed");
    assert!(refused.contains("by configuration"), "{refused}");
    assert_eq!(client.values("SELECT count(*) FROM t"), ["2"], "reads go on");
    primary.start().expect("starts");
    eventually("writes go on", || running.cluster().view().writes == Writes::Open);
    client.query("INSERT INTO t VALUES (3)");
    eventually("the row is replicated", || sql(replica, "SELECT count(*) FROM t").trim() == "3");
    // By hand it goes and comes as any other.
    running.order(Order::Detach(NodeId(1))).expect("detached");
    eventually("it is not used", || status(&running, 1) == Some((Role::Standby, Status::Detached)));
    assert_eq!(client.values("SELECT count(*) FROM t"), ["2"]);
    running.order(Order::Attach(NodeId(1))).expect("attached");
    eventually("it is used", || status(&running, 1) == Some((Role::Standby, Status::Up)));
}
