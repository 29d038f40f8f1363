//! From fields to rules. Everything that PostgreSQL would take and that is not supported here is named and refused.

use std::path::Path;

use super::tokens::{Field, Token, lines};
use super::{Addresses, ClientCert, Database, HbaError, Method, Rule, Transport, UserName};

/// Lists named with `@` may name further ones; deeper than this is a circle.
const MAX_INCLUDES: usize = 10;

type Include<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

struct Context<'a> {
    file: &'a Path,
    line: usize,
    include: Include<'a>,
}

impl Context<'_> {
    fn wrong(&self, reason: impl Into<String>) -> HbaError {
        HbaError { file: self.file.to_owned(), line: self.line, reason: reason.into() }
    }
}

pub(super) fn rules(text: &str, file: &Path, include: Include<'_>) -> Result<Vec<Rule>, HbaError> {
    let found = lines(text).map_err(|(line, reason)| HbaError { file: file.to_owned(), line, reason })?;
    let mut rules = Vec::with_capacity(found.len());
    for (line, fields) in found {
        rules.push(rule(&fields, &Context { file, line, include })?);
    }
    Ok(rules)
}

fn rule(fields: &[Field], context: &Context<'_>) -> Result<Rule, HbaError> {
    let mut fields = fields.iter();
    let mut next = |what: &str| fields.next().ok_or_else(|| context.wrong(format!("end of line before {what}")));
    let transport = transport(single(next("connection type")?, "connection type", context)?, context)?;
    let databases = databases(next("database specification")?, context)?;
    let users = users(next("role specification")?, context)?;
    let addresses = if transport == Transport::Local {
        Addresses::All
    } else {
        let address = single(next("IP address specification")?, "IP address", context)?;
        match Addresses::one_column(&address.text).map_err(|reason| context.wrong(reason))? {
            Some(addresses) => addresses,
            None => {
                let mask = single(next("netmask specification")?, "netmask", context)?;
                Addresses::two_columns(&address.text, &mask.text).map_err(|reason| context.wrong(reason))?
            }
        }
    };
    let method = method(single(next("authentication method")?, "authentication method", context)?, context)?;
    let mut client_cert = if method == Method::Cert { ClientCert::VerifyFull } else { ClientCert::Any };
    for option in fields.flatten() {
        client_cert = self::client_cert(&option.text, method, context)?;
    }
    if transport != Transport::HostSsl && client_cert != ClientCert::Any {
        return Err(context.wrong("client certificates are only supported on hostssl connections"));
    }
    Ok(Rule { transport, databases, users, addresses, method, client_cert, line: context.line })
}

fn single<'a>(field: &'a Field, what: &str, context: &Context<'_>) -> Result<&'a Token, HbaError> {
    match field.as_slice() {
        [token] => Ok(token),
        _ => Err(context.wrong(format!("multiple values specified for {what}; specify exactly one per line"))),
    }
}

fn transport(token: &Token, context: &Context<'_>) -> Result<Transport, HbaError> {
    Ok(match token.text.as_str() {
        "local" => Transport::Local,
        "host" | "hostnogssenc" => Transport::Host,
        "hostssl" => Transport::HostSsl,
        "hostnossl" => Transport::HostNoSsl,
        "hostgssenc" => Transport::Never,
        "include" | "include_if_exists" | "include_dir" => {
            return Err(context.wrong(format!("{} is not supported; put the lines into this file", token.text)));
        }
        other => return Err(context.wrong(format!("invalid connection type \"{other}\""))),
    })
}

fn method(token: &Token, context: &Context<'_>) -> Result<Method, HbaError> {
    Ok(match token.text.as_str() {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "password" => Method::Password,
        "md5" => Method::Md5,
        "scram-sha-256" => Method::ScramSha256,
        "cert" => Method::Cert,
        known @ ("peer" | "ident" | "gss" | "sspi" | "pam" | "ldap" | "radius" | "bsd" | "oauth") => {
            return Err(context.wrong(format!(
                "authentication method \"{known}\" is not supported; there are trust, reject, password, md5, \
                 scram-sha-256 and cert"
            )));
        }
        other => return Err(context.wrong(format!("invalid authentication method \"{other}\""))),
    })
}

fn client_cert(option: &str, method: Method, context: &Context<'_>) -> Result<ClientCert, HbaError> {
    match option.split_once('=') {
        Some(("clientcert", "verify-full")) => Ok(ClientCert::VerifyFull),
        Some(("clientcert", "verify-ca")) if method != Method::Cert => Ok(ClientCert::VerifyCa),
        Some(("clientcert", "verify-ca")) => {
            Err(context.wrong("clientcert only accepts \"verify-full\" when using \"cert\" authentication"))
        }
        Some((name, _)) => Err(context.wrong(format!("authentication option \"{name}\" is not supported"))),
        None => Err(context.wrong(format!("authentication option not in name=value format: {option}"))),
    }
}

fn databases(field: &Field, context: &Context<'_>) -> Result<Vec<Database>, HbaError> {
    let mut databases = Vec::new();
    for token in expanded(field, context, 0)? {
        databases.push(match token.text.as_str() {
            _ if token.quoted => Database::Name(token.text),
            "all" => Database::All,
            "sameuser" => Database::SameUser,
            "replication" => Database::Replication,
            "samerole" | "samegroup" => {
                return Err(context.wrong("samerole is not supported: pgherd does not know who is member of what"));
            }
            _ => Database::Name(plain_name(token, context)?),
        });
    }
    Ok(databases)
}

fn users(field: &Field, context: &Context<'_>) -> Result<Vec<UserName>, HbaError> {
    let mut users = Vec::new();
    for token in expanded(field, context, 0)? {
        users.push(match token.text.as_str() {
            _ if token.quoted => UserName::Name(token.text),
            "all" => UserName::All,
            group if group.starts_with('+') => {
                let text =
                    format!("\"{group}\" is not supported: pgherd does not know who is member of what; list names");
                return Err(context.wrong(text));
            }
            _ => UserName::Name(plain_name(token, context)?),
        });
    }
    Ok(users)
}

fn plain_name(token: Token, context: &Context<'_>) -> Result<String, HbaError> {
    if token.text.starts_with('/') {
        return Err(context.wrong(format!("\"{}\": regular expressions are not supported; list names", token.text)));
    }
    Ok(token.text)
}

/// Replaces each `@file` by the words in it.
fn expanded(field: &Field, context: &Context<'_>, depth: usize) -> Result<Vec<Token>, HbaError> {
    let mut words = Vec::new();
    for token in field {
        match token.text.strip_prefix('@').filter(|name| !token.quoted && !name.is_empty()) {
            None => words.push(token.clone()),
            Some(_) if depth == MAX_INCLUDES => {
                return Err(context.wrong(format!("more than {MAX_INCLUDES} lists name each other with @")));
            }
            Some(name) => {
                let file = context.file.parent().unwrap_or(Path::new("")).join(name);
                let text = (context.include)(&file)
                    .map_err(|reason| context.wrong(format!("cannot read {}: {reason}", file.display())))?;
                let found = lines(&text).map_err(|(line, reason)| HbaError { file: file.clone(), line, reason })?;
                for (line, fields) in found {
                    let inner = Context { file: &file, line, include: context.include };
                    for field in &fields {
                        words.extend(expanded(field, &inner, depth + 1)?);
                    }
                }
            }
        }
    }
    Ok(words)
}
