//! Sockets that a service manager has opened: real descriptors, passed as systemd passes them. Here, for all of them are: clients by TCP and
//! by a Unix socket, administrators, HTTP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use pgherd::app::demo::ports::PortLock;

use crate::common::raw::{self, RawClient};
use crate::common::{self, proxy::Proxy};
use crate::world::{self, USER};

/// Becomes pgherd with these descriptors from 3 on, under these names.
fn program(passed: &[(&dyn AsFd, &str)]) -> Command {
    let mut moves = String::new();
    for (place, (socket, _)) in passed.iter().enumerate() {
        fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("inherited");
        // By numbers that nobody has, so that none is overwritten before it is moved.
        moves += &format!("exec {}<&{}; ", 200 + place, socket.as_fd().as_raw_fd());
    }
    for place in 0..passed.len() {
        moves += &format!("exec {}<&{} {}<&-; ", 3 + place, 200 + place, 200 + place);
    }
    let names = passed.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(":");
    let script =
        format!("{moves}export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}; exec \"$0\" \"$@\"", passed.len());
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pgherd"));
    command
}

fn listener(port: &PortLock) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port.port())).expect("a free port")
}

#[test]
fn sockets_of_a_service_manager_are_used_and_outlive_the_process() {
    let Some(cluster) = common::cluster() else { return };
    let ports: Vec<_> = (0..5).map(|_| PortLock::any().expect("a port")).collect();
    let [clients, administrators, web, unused, unused_too] = <[PortLock; 5]>::try_from(ports).expect("five");
    let folder = world::files();
    let text = world::configuration(cluster, &folder, (unused.port(), unused_too.port()), "");
    let path = folder.path().join("socket");
    let (tcp, pcp, http) = (listener(&clients), listener(&administrators), listener(&web));
    let unix = UnixListener::bind(&path).expect("a socket");
    let program = || program(&[(&tcp, "client"), (&unix, "pgherd.socket"), (&pcp, "pcp"), (&http, "web")]);
    let port = clients.port();
    let mut proxy =
        Proxy::start_by(program(), clients, &text, ("local all all trust\nhost all all 127.0.0.1/32 trust\n", ""));

    let mut local = UnixStream::connect(&path).expect("it is there");
    local.write_all(&raw::ssl_request()).expect("sent");
    let mut answer = [0];
    local.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, *b"N");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(["pcp", "node_count", "-h", "127.0.0.1", "-U", USER, "-w", "-p", &administrators.port().to_string()]);
    command.env("PCPPASSFILE", folder.path().join("pcppass"));
    assert_eq!(world::ran(&mut command).out, "3");
    let mut stream = TcpStream::connect(("127.0.0.1", web.port())).expect("it listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("an answer");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(!proxy.log().contains("probe_failed"), "no server is taken for dead before it was asked: {}", proxy.log());
    // None beside those that were passed.
    for port in [unused.port(), unused_too.port()] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{port}");
    }
    assert!(!folder.path().join(format!(".s.PGSQL.{}", unused_too.port())).exists());

    // Who comes while nobody is there waits for the next process.
    proxy.kill9();
    let waits = std::thread::spawn(move || RawClient::login(port, "postgres").values("SELECT 42"));
    proxy.begin(program());
    assert_eq!(waits.join().expect("served"), ["42"]);
    assert!(path.exists(), "the manager's file stays");
}

#[test]
fn a_socket_for_nothing_is_refused() {
    let Some(cluster) = common::cluster() else { return };
    let ports: Vec<_> = (0..3).map(|_| PortLock::any().expect("a port")).collect();
    let folder = world::files();
    let text = world::configuration(cluster, &folder, (ports[0].port(), ports[1].port()), "");
    let config = world::write(&folder, "pgherd.toml", &text);
    world::write(&folder, "hba.conf", "local all all trust\n");
    let no_users = text.lines().filter(|line| !line.contains("users_file")).collect::<Vec<_>>().join("\n");
    let no_users = world::write(&folder, "no_users.toml", &no_users);
    let (socket, file) = (listener(&ports[2]), std::fs::File::open(&config).expect("a file"));
    for (passed, config, why) in [
        ((&socket as &dyn AsFd, "metrics"), &config, "none of client, pcp and web"),
        ((&file, "client"), &config, "neither a TCP nor a Unix socket"),
        ((&socket, "pcp"), &no_users, "pcp.users_file is not set"),
    ] {
        let mut command = program(&[passed]);
        let ran = world::ran(command.arg("run").arg("--config").arg(config));
        assert!(ran.code == Some(1) && ran.err.contains(why), "{why}: {ran:?}");
    }
}
