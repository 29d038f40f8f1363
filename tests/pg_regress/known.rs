//! The scripts whose output may differ from a direct connection's, each with its reason. The list may only shrink; it is told to
//! readers in `tests/README.md`.

/// A script, the pool modes in which it may differ, and why.
pub(crate) const KNOWN: &[(&str, &[&str], &str)] = &[
    (
        "largeobject",
        &["session", "transaction"],
        "it prints OIDs that the server chose; each server process makes its temporary schemas in each database, which takes two, \
         and a pool has other processes than a lone client",
    ),
    (
        "stats",
        &["session", "transaction"],
        "it looks at its server process: `\\c` need not open a new one, so that pg_stat_database.sessions stays as it is, and \
         temp_buffers cannot be set again; what PostgreSQL 15 calls a backend id in pg_stat_get_backend_idset is a place in a \
         list, which agrees with the temporary schema's number by chance",
    ),
];

/// Whether `script` may differ in `mode`.
pub(crate) fn known(script: &str, mode: &str) -> bool {
    KNOWN.iter().any(|(name, modes, _)| *name == script && modes.contains(&mode))
}
