//! Statements about pgherd in a transaction that a server holds, by the extended protocol: the server is given a query of the answer's own
//! rows in their place, so that names, portals, Describe, Flush and the transaction's state are as with any other statement.

use crate::sql::{Effect, Facts};
use crate::wire::write;

use super::{Command, Rows};
use crate::session::Session;

impl Session {
    /// The end of a Parse message (text, NUL, no parameters) that answers what these facts ask of pgherd. None: they ask nothing, or nothing
    /// that can be answered so.
    pub(in crate::session) fn stand_in(&mut self, facts: &Facts) -> Option<Vec<u8>> {
        let [Effect::Admin { words }] = &facts.effects[..] else { return None };
        let Ok(Command::Show(show)) = self.command(words) else { return None };
        if show.gathers() {
            return None;
        }
        let rows = self.rows(&show).ok()?;
        let columns = show.columns();
        let mut tail = query(&columns.iter().map(|name| &**name).collect::<Vec<_>>(), &rows);
        if self.told.get("client_encoding") != Some(b"UTF8") {
            // In the client's encoding the bytes of a character may mean another one, or the end of a literal.
            for byte in tail.iter_mut().filter(|byte| !byte.is_ascii()) {
                *byte = b'?';
            }
        }
        tail.extend([0, 0, 0]);
        Some(tail)
    }
}

/// A query with these columns, of type text, and rows.
fn query(columns: &[&str], rows: &Rows) -> Vec<u8> {
    let mut text = Vec::new();
    let nothing = vec![None; columns.len()];
    let every = if rows.is_empty() { std::slice::from_ref(&nothing) } else { &rows[..] };
    for (at, row) in every.iter().enumerate() {
        text.extend_from_slice(if at == 0 { b"SELECT " } else { b" UNION ALL SELECT " });
        for (column, value) in row.iter().enumerate() {
            if column > 0 {
                text.push(b',');
            }
            match value {
                Some(value) => write::literal(&mut text, value),
                None => text.extend_from_slice(b"NULL"),
            }
            if at == 0 {
                text.extend_from_slice(b"::pg_catalog.text AS ");
                write::identifier(&mut text, columns[column]);
            }
        }
    }
    if rows.is_empty() {
        text.extend_from_slice(b" WHERE false");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_a_query() {
        let text = |rows: &Rows| String::from_utf8(query(&["a", "from"], rows)).expect("text");
        assert_eq!(
            text(&vec![]),
            "SELECT NULL::pg_catalog.text AS \"a\",NULL::pg_catalog.text AS \"from\" WHERE false"
        );
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            text(&vec![vec![some("x"), None], vec![some("it's"), some("2")]]),
            "SELECT 'x'::pg_catalog.text AS \"a\",NULL::pg_catalog.text AS \"from\" UNION ALL SELECT 'it''s','2'"
        );
    }
}
