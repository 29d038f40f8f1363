#!/usr/bin/env python3
"""Writes src/sql/builtins/table.rs from the pg_proc of a running PostgreSQL (give psql's connection arguments).

    tests/data/sql/builtins.py -h /tmp -p 5432 -U postgres > src/sql/builtins/table.rs

Rules (SESSIONS R8): a name is allowed on standbys only if every overload is immutable or stable and nothing below denies
it. tests/pg holds the table against a real server.
"""
import re
import subprocess
import sys

QUERY = r"""
select proname, bool_or(provolatile = 'v'),
       bool_or(pronargs - pronargdefaults <= 1 and pronargs >= 1) 
from pg_proc where oid < 16384 and pronamespace = 'pg_catalog'::regnamespace
  and not ('internal'::regtype = any(proargtypes::oid[]))
  and prorettype not in ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype,
                         'index_am_handler'::regtype, 'table_am_handler'::regtype)
group by 1 order by 1
"""

# Volatile, but they neither write nor touch the session, and give every server's clock or chance equally.
SAFE_VOLATILE = set("clock_timestamp gen_random_uuid pg_sleep pg_sleep_for pg_sleep_until timeofday".split())
# pg_… names that are arithmetic on their arguments; all other pg_… names are about this server.
SAFE_PG = re.compile(
    r"pg_(typeof|column_size|column_compression|size_pretty|size_bytes|collation_for|lsn\w*|wal_lsn_diff"
    r"|sleep|sleep_for|sleep_until|char_to_encoding|encoding_to_char|encoding_max_length)$")
# Immutable or stable, but about the session, xids, catalogs by name, or whole relations named in a literal.
DENY = re.compile(
    r"(current_(database|query|schema|schemas|setting|user)|session_user|getpgusername|getdatabaseencoding|user"
    r"|get_current_ts_config|version|row_security_active|mxid_age|has_\w+|to_reg\w+|reg\w+in|regclass|\w+_description"
    r"|inet_(client|server)_(addr|port)|txid_\w+|\w+_to_xml(schema|_and_xmlschema)?|ts_debug|currtid2|icu_unicode_version"
    r"|unicode_version|system_user|fmgr_\w+|plpgsql_\w+)$")
# Run a text or a cursor that is given to them.
RUNS_TEXT = set("query_to_xml query_to_xml_and_xmlschema query_to_xmlschema cursor_to_xml cursor_to_xmlschema ts_stat"
                " ts_rewrite".split())
# Volatile, for the primary, but a later read need not see anything of it.
NO_WRITE = re.compile(
    r"(random|random_normal|current_query|currval|lastval|setseed|set_config|pg_(try_)?advisory_\w+|pg_is_\w+|pg_blocking_pids"
    r"|pg_safe_snapshot_blocking_pids|pg_control_\w+|pg_current_\w+|pg_last_\w+|pg_\w+_size|pg_stat_\w+|pg_ls_\w+|pg_read_\w+"
    r"|pg_lock_status|pg_xact_\w+|txid_\w+|pg_partition_\w+|pg_get_\w+|pg_show_\w+|pg_jit_available|pg_cancel_backend"
    r"|pg_terminate_backend|pg_notification_queue_usage|pg_hba_file_rules|pg_ident_file_mappings|pg_\w*collation_actual_version"
    r"|pg_sequence_last_value|pg_prepared_xact|pg_isolation_test_\w+|pg_log_backend_memory_contexts|bernoulli|system"
    r"|pg_reload_conf|pg_rotate_logfile\w*|currtid2)$")
# Sampling methods of TABLESAMPLE, functions by name only.
SAMPLING = {"bernoulli", "system"}
# Safe ones that came after the server the table was made from.
NEWER = set("""any_value array_reverse array_sort casefold crc32 crc32c date_add date_subtract erf erfc gamma lgamma
 json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value
 pg_basetype to_bin to_oct uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 xmltext bit_count
 range_agg range_intersect_agg regexp_count regexp_instr regexp_like regexp_substr unistr string_to_table date_bin
 trim_array bit_xor""".split())
NEWER_DENY = set("system_user icu_unicode_version unicode_version array_sample array_shuffle random_normal".split())


def rows():
    out = subprocess.run(["psql", "-XAt", "-F", "\t", "-c", QUERY] + sys.argv[1:], check=True, capture_output=True, text=True)
    for line in out.stdout.splitlines():
        name, volatile, one = line.split("\t")
        yield name, volatile == "t", one == "t"


def table(doc, name, names):
    print(f"/// {doc}\n#[rustfmt::skip]\npub(super) static {name}: &[&str] = &[")
    line = "   "
    for n in sorted(names, key=lambda n: n.encode()):
        item = f' "{n}",'
        if len(line) + len(item) > 120:
            print(line)
            line = "   "
        line += item
    print(line + "\n];")


def main():
    allowed, primary, writing, running, one_argument = set(NEWER), set(NEWER_DENY), set(), set(), set()
    for name, volatile, one in rows():
        name = name.lower()
        if name in RUNS_TEXT:
            running.add(name)
        elif volatile and name not in SAFE_VOLATILE and name not in SAMPLING:
            (primary if NO_WRITE.match(name) else writing).add(name)
        elif DENY.match(name) or (name.startswith("pg_") and not SAFE_PG.match(name)):
            primary.add(name)
        else:
            allowed.add(name)
        if name not in allowed and one:
            one_argument.add(name)
    allowed |= SAMPLING
    allowed -= primary | writing | running
    print("//! The functions that PostgreSQL brings along, by what they may do on a standby (SESSIONS R8). Generated by\n"
          "//! `tests/data/sql/builtins.py`; must not be edited by hand.\n")
    table("May run on a standby: every overload is immutable or stable, and none is about the session or this server.",
          "ALLOWED", allowed)
    print()
    table("For the primary, though nothing is written that a later read should see.", "PRIMARY", primary)
    print()
    table("Volatile: may write.", "WRITING", writing)
    print()
    table("Run a query that is given to them as a text, so they may do anything.", "RUNNING", running)
    print()
    table("Those of the last three that can be called with one argument, hence also as `(x).name`.", "ONE_ARGUMENT", one_argument)


main()
