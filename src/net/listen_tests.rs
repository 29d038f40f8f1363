//! Listeners on real sockets: stale files, files in use, permissions, clean-up.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pgherd-listen-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn greets(listener: Listener, mut client: Stream) -> Acceptor {
    let listener = listener.attend().expect("attended");
    let (mut server, _) = listener.accept().await.expect("a client");
    server.write_all(b"hi").await.expect("written");
    let mut buf = [0; 8];
    assert_eq!(client.read(&mut buf).await.expect("bytes"), 2);
    listener
}

#[tokio::test]
async fn tcp_accepts_and_tells_its_port() {
    let listener = bind_tcp("127.0.0.1:0".parse().expect("an address"), 16).expect("bound");
    let PeerAddr::Ip(address) = listener.address() else { panic!("TCP") };
    assert_ne!(address.port(), 0);
    let client = tokio::net::TcpStream::connect(address).await.expect("connected");
    let _open = greets(listener, client.into()).await;
    let again = bind_tcp(address, 16).err().expect("in use");
    assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_group_shares_connections_and_nobody_else_gets_the_address() {
    let group = bind_tcp_group("127.0.0.1:0".parse().expect("an address"), 64, 3).expect("bound");
    let PeerAddr::Ip(address) = group[0].address() else { panic!("TCP") };
    assert!(group.iter().all(|listener| listener.address() == group[0].address()));
    for again in [bind_tcp(address, 16).map(drop), bind_tcp_group(address, 16, 2).map(drop)] {
        assert_eq!(again.expect_err("in use").kind(), io::ErrorKind::AddrInUse);
    }
    let acceptors: Vec<Acceptor> = group.into_iter().map(|listener| listener.attend().expect("attended")).collect();
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(tokio::net::TcpStream::connect(address).await.expect("connected"));
    }
    let mut shares = Vec::new();
    for acceptor in &acceptors {
        let mut share = 0;
        let moment = std::time::Duration::from_millis(100);
        while tokio::time::timeout(moment, acceptor.accept()).await.is_ok_and(|accepted| accepted.is_ok()) {
            share += 1;
        }
        shares.push(share);
    }
    assert_eq!(shares.iter().sum::<i32>(), 60);
    assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
}

#[tokio::test]
async fn an_accepted_connection_has_the_options_of_its_listener() {
    let listener = bind_tcp("127.0.0.1:0".parse().expect("an address"), 16).expect("bound");
    let PeerAddr::Ip(address) = listener.address() else { panic!("TCP") };
    let seconds = std::time::Duration::from_secs;
    let keepalive = crate::net::Keepalive { idle: seconds(7), interval: seconds(3), count: 4 };
    let options = SocketOptions { keepalive: Some(keepalive), user_timeout: Some(seconds(9)) };
    listener.set_options(&options).expect("set");
    let _client = tokio::net::TcpStream::connect(address).await.expect("connected");
    let (accepted, _) = listener.attend().expect("attended").accept().await.expect("a client");
    let Stream::Tcp(tcp) = accepted else { panic!("TCP") };
    let socket = socket2::SockRef::from(&tcp);
    assert!(socket.tcp_nodelay().expect("readable") && socket.keepalive().expect("readable"));
    assert_eq!(socket.tcp_keepalive_time().expect("readable"), keepalive.idle);
    assert_eq!(socket.tcp_keepalive_interval().expect("readable"), keepalive.interval);
    assert_eq!(socket.tcp_keepalive_retries().expect("readable"), keepalive.count);
    assert_eq!(socket.tcp_user_timeout().expect("readable"), options.user_timeout);
}

#[tokio::test]
async fn s30_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = Folder::new("stale");
    let path = folder.0.join(".s.PGSQL.9999");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a dead process leaves its socket");
    let listener = bind_unix(&folder.0, 9999, 0o770, 16).expect("the stale file is replaced");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o770);
    let second = bind_unix(&folder.0, 9999, 0o777, 16).err().expect("locked");
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    let client = tokio::net::UnixStream::connect(&path).await.expect("connected");
    drop(greets(listener, client.into()).await);
    assert_eq!(fs::read_dir(&folder.0).expect("readable").count(), 0, "both files are gone");
}

#[tokio::test]
async fn s30_socket_of_a_process_without_our_lock_is_left_alone() {
    let folder = Folder::new("live");
    let path = folder.0.join(".s.PGSQL.5432");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let refused = bind_unix(&folder.0, 5432, 0o777, 16).err().expect("answered");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    assert!(path.exists());
    drop(other);
}
