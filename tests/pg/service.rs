//! What a service manager hears: a socket of ours in its place.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::common::proxy::{Options, Proxy};
use crate::common::{self, SOON};

/// Where the process says something.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message but signs of life.
    fn next(&self) -> Vec<String> {
        loop {
            let lines = self.any().expect("it says something");
            if lines != ["WATCHDOG=1"] {
                return lines;
            }
        }
    }

    /// The next message; none within the time set.
    fn any(&self) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned).collect())
    }
}

#[test]
fn the_service_manager_is_told() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let path = cluster.folder().join("manager");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket"));
    manager.0.set_read_timeout(Some(SOON)).expect("set");
    let environment = vec![
        ("NOTIFY_SOCKET", path.display().to_string()),
        ("WATCHDOG_USEC", Duration::from_secs(3).as_micros().to_string()),
    ];
    let options = Options { environment, ..Options::default() };
    let proxy = Proxy::start(cluster, &options);
    let ready = vec!["READY=1".to_owned(), format!("STATUS=serves clients on port {}", proxy.port())];
    assert_eq!(manager.next(), ready);
    for _ in 0..2 {
        assert_eq!(manager.any().expect("a sign of life"), ["WATCHDOG=1"]);
    }
    proxy.reload(cluster, &options);
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(manager.next(), ready);
    proxy.stop();
    assert_eq!(manager.next(), ["STOPPING=1"]);
    std::fs::remove_file(&path).expect("it is there");
}
