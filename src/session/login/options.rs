//! The startup parameter `options`: the command line of a server process, of which only settings have a meaning here.

/// Settings of an `options` text, in order; PostgreSQL's splitting: white space, backslash escapes the next byte.
///
/// # Errors
/// A text for the client: a switch that is no setting.
pub(super) fn settings(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = split(text).into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.as_bytes() {
            [b'-', b'c'] => words.next().ok_or_else(|| "option \"-c\" requires a value".to_owned())?,
            [b'-', b'c', ..] | [b'-', b'-', _, ..] => word[2..].to_owned(),
            _ => return Err(format!("invalid command-line argument for server process: {word}")),
        };
        let Some((name, value)) = setting.split_once('=') else {
            let switch = if word.starts_with("--") { format!("--{setting}") } else { format!("-c {setting}") };
            return Err(format!("{switch} requires a value"));
        };
        // PostgreSQL: a dash in such a name stands for an underscore.
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut symbols = text.chars();
    while let Some(symbol) = symbols.next() {
        match symbol {
            ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(symbols.next()),
            _ => word.get_or_insert_default().push(symbol),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r06_options_become_settings() {
        for (text, expected) in [
            ("", &[][..]),
            ("   ", &[]),
            ("-c geqo=off", &[("geqo", "off")]),
            ("-cgeqo=off --search-path=a,b", &[("geqo", "off"), ("search_path", "a,b")]),
            ("-c search_path=a\\ b\\\\c -c\tx.y=", &[("search_path", "a b\\c"), ("x.y", "")]),
            ("-c a=b=c", &[("a", "b=c")]),
        ] {
            let found = settings(text).expect(text);
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        }
        for bad in ["-c", "-c geqo", "--geqo", "-B 100", "geqo=off", "--", "-"] {
            assert!(settings(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn r06_no_options_panic(text in "(-c|--|=|\\\\| |\\PC){0,30}") {
            let _ = settings(&text);
        }
    }
}
