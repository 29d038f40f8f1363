//! The queries that read a database's catalog, for PostgreSQL 13 and later. Any role may run them. Texts only.

/// Rows of functions: schema, name, volatility (`i`, `s`, `v`), language, kind (`f`, `p`, `a`, `w`), source, body in the SQL
/// standard's form (14 and later), whether it can be called as `(x).name` (`t`, `f`), whether an aggregate is made of
/// built-in functions only (`t`, `f`).
///
/// `version` is `server_version_num`.
pub fn functions(version: u32) -> &'static str {
    if version >= 140_000 { FUNCTIONS } else { FUNCTIONS_13 }
}

macro_rules! functions {
    ($body:literal) => {
        concat!(
            "SELECT n.nspname, p.proname, p.provolatile, l.lanname, p.prokind, \
             CASE WHEN l.lanname = 'sql' THEN p.prosrc END, CASE WHEN l.lanname = 'sql' THEN ",
            $body,
            " END, (p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1), \
             (SELECT bool_and(f = 0 OR f < 16384) FROM unnest(ARRAY[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid, \
             a.aggserialfn::oid, a.aggdeserialfn::oid, a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid]) AS f) \
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
             JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
             LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid \
             WHERE p.oid >= 16384"
        )
    };
}

const FUNCTIONS: &str = functions!("pg_catalog.pg_get_function_sqlbody(p.oid)");
const FUNCTIONS_13: &str = functions!("NULL::text");

/// Rows of relations: schema, name, kind (`r`, `p`, `v`, `m`, `f`, `S`), whether row security is on (`t`, `f`), the worst
/// persistence and kind among itself and its descendants (`u` unlogged, `f` foreign, `p` neither), whether writing to it runs
/// code of users (`t`, `f`), the definition of a view, whether a default of its columns takes a value from a sequence (`t`, `f`).
///
/// Code of users: triggers; rules; defaults, constraints, policies and indexes that call a function that is not built in; each
/// also where it is a partition's or child's, or a table's that a foreign key's action writes to.
pub const RELATIONS: &str = "\
WITH RECURSIVE code AS (
    SELECT classid, objid FROM pg_catalog.pg_depend
    WHERE refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND refobjid >= 16384
), up AS (
    SELECT inhrelid AS child, inhparent AS parent FROM pg_catalog.pg_inherits
    UNION ALL
    SELECT conrelid, confrelid FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
), active(oid) AS (
    SELECT * FROM (
        SELECT tgrelid FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
        UNION SELECT ev_class FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN'
        UNION SELECT d.adrelid FROM pg_catalog.pg_attrdef d
            JOIN code ON classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND objid = d.oid
        UNION SELECT k.conrelid FROM pg_catalog.pg_constraint k
            JOIN code ON classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND objid = k.oid
        UNION SELECT a.attrelid FROM pg_catalog.pg_constraint k
            JOIN code ON classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND objid = k.oid
            JOIN pg_catalog.pg_attribute a ON a.atttypid = k.contypid WHERE k.contypid <> 0
        UNION SELECT o.polrelid FROM pg_catalog.pg_policy o
            JOIN code ON classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND objid = o.oid
        UNION SELECT i.indrelid FROM pg_catalog.pg_index i
            JOIN code ON classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = i.indexrelid
        UNION SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'v'
    ) AS base
    UNION
    SELECT up.parent FROM active JOIN up ON up.child = active.oid
), special(oid, what) AS (
    SELECT oid, CASE WHEN relkind = 'f' THEN 'f' ELSE 'u' END FROM pg_catalog.pg_class
    WHERE relkind = 'f' OR relpersistence = 'u'
    UNION
    SELECT i.inhparent, special.what FROM special JOIN pg_catalog.pg_inherits i ON i.inhrelid = special.oid
), serial(oid) AS (
    SELECT attrelid FROM pg_catalog.pg_attribute WHERE attidentity <> ''
    UNION SELECT adrelid FROM pg_catalog.pg_attrdef WHERE pg_catalog.pg_get_expr(adbin, adrelid) LIKE '%val(%'
    UNION SELECT a.attrelid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.atttypid = t.oid
        WHERE t.typdefault LIKE '%val(%'
    UNION SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'v'
)
SELECT n.nspname, c.relname, c.relkind, c.relrowsecurity,
    COALESCE((SELECT max(what) FROM special WHERE special.oid = c.oid), 'p'),
    c.oid IN (SELECT oid FROM active),
    CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END,
    c.oid IN (SELECT oid FROM serial)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'";
