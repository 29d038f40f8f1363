//! One server with a user per method, certificates, and a front door that passes a conversation through.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::programs::{self, Finished};
use pgherd::auth::hba::Hba;
use pgherd::auth::{Credentials, Users};
use pgherd::backend::{self, KeyMaker, LoggedIn, LoginError, LoginParams};
use pgherd::net::{ClientTls, DialTarget, Endpoint, Known, PeerAddr, ServerTls, SocketOptions, SslMode, Stream};
use pgherd::session::login::{Admission, Arrival, ClientLogin, LoginPolicy, log_in};
use pgherd::support::clock;
use pgherd::wire::{TxStatus, write};

/// Bound on every single step.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const HBA: &str = "\
host all postgres 127.0.0.1/32 trust
host all u_trust 127.0.0.1/32 trust
host all u_password 127.0.0.1/32 password
host all u_md5 127.0.0.1/32 md5
hostssl all u_tls 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
";

const ROLES: &str = "\
SET password_encryption = 'md5';
CREATE ROLE u_md5 LOGIN PASSWORD 'secret';
SET password_encryption = 'scram-sha-256';
CREATE ROLE u_trust LOGIN;
CREATE ROLE u_password LOGIN PASSWORD 'secret';
CREATE ROLE u_scram LOGIN PASSWORD 'secret';
CREATE ROLE u_tls LOGIN PASSWORD 'sécret';
";

/// A server without standbys, its rules and roles as above. `None`: there is no PostgreSQL here.
pub(crate) fn server() -> Option<Cluster> {
    let cluster = match Cluster::start(&Options { standbys: 0, ..Options::default() }) {
        Ok(cluster) => cluster,
        Err(Error::NoPostgres) if std::env::var_os("STRICT").is_none() => {
            println!("SKIP login: no PostgreSQL programs");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let primary = cluster.primary();
    primary.psql("postgres", ROLES).expect("roles");
    std::fs::write(primary.data().join("pg_hba.conf"), HBA).expect("rules");
    reload(&cluster);
    Some(cluster)
}

/// Makes the server read its files again and waits until it did.
pub(crate) fn reload(cluster: &Cluster) {
    let loaded = || cluster.primary().psql("postgres", "SELECT pg_conf_load_time()").expect("the server answers");
    let before = loaded();
    cluster.primary().reload().expect("signalled");
    let deadline = clock::now() + SOON;
    while loaded() == before {
        assert!(clock::now() < deadline, "the server does not reload");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a certificate for `names` with this common name, signed by the CA `ca`, which is made if it is not there.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// `<folder>/<name>.pem` is its certificate.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("a CA");
        write_open(&folder.join(format!("{name}.pem")), &certificate.pem());
        Self { folder: folder.to_owned(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// Writes `<file>.pem` and `<file>.key`.
    pub(crate) fn sign(&self, file: &str, common_name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let at = |end: &str| self.folder.join(format!("{file}.{end}"));
        write_open(&at("pem"), &certificate.pem());
        std::fs::write(at("key"), key.serialize_pem()).expect("written");
        std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o600)).expect("private");
        (at("pem"), at("key"))
    }
}

fn write_open(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("readable");
}

/// One single-threaded runtime for one test.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Connects to the server as `user`.
pub(crate) async fn connect(
    cluster: &Cluster,
    host: &str,
    tls: ClientTls,
    user: &str,
    credentials: &Credentials,
) -> Result<LoggedIn, LoginError> {
    let target = DialTarget {
        endpoint: Endpoint::new(host, cluster.primary().port()),
        timeout: SOON,
        tls: Arc::new(tls),
        options: SocketOptions::default(),
        known: Known::default(),
    };
    let options = [("application_name".to_owned(), "herd".to_owned())];
    let params = LoginParams { user, database: "postgres", options: &options, replication: None };
    backend::connect(&target, &params, credentials, &KeyMaker::default(), clock::now() + SOON).await
}

/// The first column of the first row that a query returns.
pub(crate) async fn ask(stream: &mut Stream, sql: &str) -> String {
    let mut bytes = Vec::new();
    write::query(&mut bytes, sql.as_bytes());
    stream.write_all(&bytes).await.expect("sent");
    let mut reply = Vec::new();
    let mut value = None;
    loop {
        while let Some(header) = pgherd::wire::peek_unlimited(&reply).filter(|header| header.size <= reply.len()) {
            let frame: Vec<u8> = reply.drain(..header.size).collect();
            match header.tag {
                // One column: count, length, value.
                b'D' => value = Some(String::from_utf8(frame[11..].to_vec()).expect("text")),
                b'E' => panic!("{}", frame.escape_ascii()),
                b'Z' => return value.expect("a row"),
                _ => {}
            }
        }
        let mut buf = [0; 4096];
        let read = stream.read(&mut buf).await.expect("a reply");
        assert_ne!(read, 0, "the server went away");
        reply.extend_from_slice(&buf[..read]);
    }
}

/// Rules and users of a front door.
pub(crate) fn policy(hba: &str, users: &str, tls: Option<ServerTls>) -> LoginPolicy {
    LoginPolicy {
        hba: Hba::parse(hba, Path::new("hba"), &|_| Err("no lists".to_owned())).expect("rules"),
        users: Users::parse(users, Path::new("users")).expect("users"),
        tls,
        timeout: SOON,
        salts: Arc::default(),
        keys: Arc::default(),
    }
}

/// Runs `psql` with this connection string (host and port are added) and query against a front door; for a client that
/// comes in, the server is opened with what its login taught, and the conversation passed through.
pub(crate) async fn through(
    cluster: &Cluster,
    policy: &LoginPolicy,
    conninfo: &str,
    sql: &str,
) -> (Finished, Option<ClientLogin>) {
    let listener = pgherd::net::bind_tcp("127.0.0.1:0".parse().expect("an address"), 16).expect("bound");
    let PeerAddr::Ip(address) = listener.address() else { panic!("TCP") };
    let mut psql = Command::new(cluster.programs().path("psql"));
    programs::without_surroundings(&mut psql);
    let conninfo = format!("host=localhost hostaddr=127.0.0.1 port={} dbname=postgres {conninfo}", address.port());
    psql.args(["-X", "-w", "-At", "-d", &conninfo, "-c", sql]).env("PGCONNECT_TIMEOUT", "20");
    let listener = listener.attend().expect("attended");
    let running = tokio::task::spawn_blocking(move || programs::run(&mut psql, &[], SOON).expect("psql ends"));
    let serve = async {
        loop {
            let (client, peer) = listener.accept().await.expect("a client");
            if let Ok(Arrival::Client(client)) = log_in(client, peer, policy, Admission::Open).await {
                return pass_through(cluster, *client).await;
            }
        }
    };
    tokio::pin!(running);
    tokio::select! {
        finished = &mut running => (finished.expect("no panic"), None),
        login = serve => (running.await.expect("no panic"), Some(login)),
    }
}

/// Opens the server with the client's own credentials and relays until the client leaves. Gives the login back, its
/// connection closed.
async fn pass_through(cluster: &Cluster, mut login: ClientLogin) -> ClientLogin {
    let credentials = login.learned.clone().unwrap_or(Credentials::None);
    let opened = connect(cluster, "127.0.0.1", ClientTls::disabled(), &login.user, &credentials).await;
    let mut bytes = std::mem::take(&mut login.accepted);
    let mut server = match opened {
        Ok(opened) => {
            for (name, value) in &opened.parameters {
                write::parameter_status(&mut bytes, name, value);
            }
            write::key_data(&mut bytes, opened.cancel.pid, &opened.cancel.secret);
            write::ready(&mut bytes, TxStatus::Idle);
            opened.stream
        }
        Err(error) => {
            write::error(&mut bytes, write::Severity::Fatal, &error.sqlstate, &error.message, None);
            login.stream.write_all(&bytes).await.expect("sent");
            login.stream.shutdown().await.expect("closed");
            return login;
        }
    };
    login.stream.write_all(&bytes).await.expect("sent");
    let (mut up, mut down) = (vec![0; 8192], vec![0; 8192]);
    loop {
        tokio::select! {
            read = login.stream.read(&mut up) => match read.expect("the client speaks") {
                0 => return login,
                read => server.write_all(&up[..read]).await.expect("sent"),
            },
            read = server.read(&mut down) => match read.expect("the server speaks") {
                0 => return login,
                read => login.stream.write_all(&down[..read]).await.expect("sent"),
            },
        }
    }
}

/// No TLS asked of a server.
pub(crate) fn plain() -> ClientTls {
    ClientTls::new(SslMode::Disable, None).expect("nothing to read")
}
