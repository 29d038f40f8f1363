//! Files that hold something else after a reload: a certificate and its key, users. New connections see them; broken ones change nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgherd::app::demo::folder::{Folder, Owner};
use pgherd::app::demo::programs::{self, Finished};

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::RawClient;
use crate::common::{self, eventually};

/// A certificate that signs itself, and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("private");
}

fn run(command: &mut Command) -> Finished {
    programs::run(command, &[], Duration::from_secs(60)).expect("it ends")
}

#[test]
fn certificates_and_passwords_change_with_a_reload() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    cluster.primary().psql("postgres", "CREATE ROLE renewed LOGIN").expect("a role");
    let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (first, second) = (certificate(), certificate());
    write(&at("first"), &first.0);
    write(&at("second"), &second.0);
    let serve = |(certificate, key): &(String, String)| {
        write(&at("server.pem"), certificate);
        write(&at("server.key"), key);
    };
    serve(&first);
    let tls = format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", at("server.pem").display(), at("server.key").display());
    let options = Options {
        hba: "host all postgres 127.0.0.1/32 trust\nhostssl all renewed 127.0.0.1/32 scram-sha-256\n".into(),
        users: "renewed:old\n".into(),
        auth: tls,
        ..Options::default()
    };
    let proxy = Proxy::start(cluster, &options);
    let mut from_before = RawClient::login(proxy.port(), "postgres");

    // What psql says who trusts that certificate alone, with that password.
    let log_in = |trusted: &str, password: &str| {
        let place = format!(
            "host=127.0.0.1 port={} user=renewed dbname=postgres sslmode=verify-ca sslrootcert={}",
            proxy.port(),
            at(trusted).display()
        );
        let mut command = programs::psql(cluster.programs(), proxy.port(), &place);
        let ran = run(command.env("PGPASSWORD", password).args(["-c", "SELECT 'well'"]));
        format!("{}{}", ran.text(), ran.complaint())
    };
    let reload = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        run(command.arg("reload").arg("--config").arg(proxy.folder().join("pgherd.toml")))
    };
    eventually("the role is there, and served", || log_in("first", "old").starts_with("well"));
    assert!(log_in("second", "old").contains("certificate verify failed"));

    serve(&second);
    write(&proxy.folder().join("users"), "renewed:new\n");
    let ran = reload();
    let said = "reloaded: 3 changed (auth.users_file, tls.cert, tls.key)";
    assert!(ran.status.success() && ran.text().starts_with(said), "{}{}", ran.text(), ran.complaint());
    assert!(log_in("second", "new").starts_with("well"));
    assert!(log_in("second", "old").contains("password authentication failed"));
    assert!(log_in("first", "new").contains("certificate verify failed"));

    // A key that is not the certificate's, and a certificate that is none: neither they nor the good file beside them are taken.
    for (certificate, key) in [(&first.0, &second.1), (&"no certificate".to_owned(), &second.1)] {
        serve(&(certificate.clone(), key.clone()));
        write(&proxy.folder().join("users"), "renewed:third\n");
        let ran = reload();
        assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
        assert!(ran.complaint().contains("tls"), "{}", ran.complaint());
        assert!(log_in("second", "new").starts_with("well"));
        assert!(log_in("second", "third").contains("password authentication failed"));
    }
    assert_eq!(from_before.values("SELECT 1"), ["1"]);
}
