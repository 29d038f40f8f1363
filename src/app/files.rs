//! Files that the configuration names: users, rules of the HBA file, certificates, and whether one of them holds something else than before.
//! Must not apply anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::auth::Users;
use crate::auth::hba::Hba;
use crate::auth::scram::SaltMaker;
use crate::backend::KeyMaker;
use crate::config::{Change, Reload, Settings};
use crate::net::ServerTls;
use crate::session::login::LoginPolicy;

use super::Error;

/// The file of users; none without one.
///
/// # Errors
/// It cannot be used.
pub(super) fn users(settings: &Settings) -> Result<Users, Error> {
    let Some(file) = &settings.auth.users_file else { return Ok(Users::default()) };
    let (users, warning) = Users::load(file)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(users)
}

/// What a login needs.
///
/// # Errors
/// A file cannot be used.
pub(super) fn login_policy(
    settings: &Settings,
    users: Users,
    salts: Arc<SaltMaker>,
    keys: Arc<KeyMaker>,
) -> Result<LoginPolicy, Error> {
    let hba = match &settings.auth.hba_file {
        Some(file) => Hba::load(file)?,
        None => Hba::default(),
    };
    let tls = match &settings.tls {
        Some(tls) => Some(ServerTls::new(&tls.cert, &tls.key, tls.client_ca.as_deref())?),
        None => None,
    };
    Ok(LoginPolicy { hba, users, tls, timeout: settings.listen.authentication_timeout, salts, keys })
}

/// What files hold, by the parameters that name them: a digest, so that no secret is kept.
#[derive(Debug, Default)]
pub(super) struct Prints(BTreeMap<String, Vec<u8>>);

impl Prints {
    /// Of those that can be read; what cannot be used is refused elsewhere.
    pub(super) fn of(settings: &Settings) -> Self {
        let tls = settings.tls.as_ref();
        let mut files: Vec<(String, Option<&Path>)> = vec![
            ("auth.users_file".to_owned(), settings.auth.users_file.as_deref()),
            ("auth.hba_file".to_owned(), settings.auth.hba_file.as_deref()),
            ("tls.cert".to_owned(), tls.map(|tls| tls.cert.as_path())),
            ("tls.key".to_owned(), tls.map(|tls| tls.key.as_path())),
            ("tls.client_ca".to_owned(), tls.and_then(|tls| tls.client_ca.as_deref())),
            ("pcp.users_file".to_owned(), settings.pcp.users_file.as_deref()),
        ];
        files.extend(settings.nodes.iter().map(|node| (format!("node[{}].ca", node.id), node.ca.as_deref())));
        let print = |path: &Path| Some(digest(&SHA256, &std::fs::read(path).ok()?).as_ref().to_vec());
        Self(files.into_iter().filter_map(|(key, path)| Some((key, print(path?)?))).collect())
    }

    /// `changes`, and those files that hold something else than `before` although nothing about them is among the changes.
    pub(super) fn changed(&self, before: &Self, mut changes: Vec<Change>) -> Vec<Change> {
        for (key, print) in &self.0 {
            let other = before.0.get(key).is_some_and(|old| old != print);
            if other && !changes.iter().any(|change| change.key == *key) {
                let class = if key == "pcp.users_file" { Reload::Live } else { Reload::NewSessions };
                let (old, new) = ("(contents)".to_owned(), "(changed)".to_owned());
                changes.push(Change { key: key.clone(), old, new, class });
            }
        }
        changes
    }
}
