//! A command line as words. Whatever is put in for placeholders is put in afterwards, so that no value becomes a word of its own and none is
//! seen by a shell. Pure; must not know placeholders.

use std::collections::BTreeMap;

/// Divides at spaces as a shell would, with both quotes and backslashes, and nothing else that a shell does.
///
/// # Errors
/// For people: a quote that does not end, a lone backslash at the end.
pub fn divide(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(letters.next().ok_or("a lone backslash at the end")?);
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote does not end".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// The program and its arguments: each `$_NAME_$` of pgpool-II's is its value, inside a word.
///
/// # Errors
/// As [`divide`], an unknown name, nothing at all.
pub fn named(command: &str, values: &[(&str, &str)]) -> Result<Vec<String>, String> {
    program(divide(command)?.iter().map(|word| fill(word, values)).collect())
}

/// The same with placeholders of one letter behind a `%`.
///
/// # Errors
/// As [`named`].
pub fn lettered(command: &str, values: &BTreeMap<char, String>) -> Result<Vec<String>, String> {
    program(divide(command)?.iter().map(|word| letter(word, values)).collect())
}

fn program(words: Result<Vec<String>, String>) -> Result<Vec<String>, String> {
    let words = words?;
    if words.first().is_none_or(String::is_empty) {
        return Err("there is no program in it".to_owned());
    }
    Ok(words)
}

fn letter(word: &str, values: &BTreeMap<char, String>) -> Result<String, String> {
    let (mut filled, mut letters) = (String::new(), word.chars());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            filled.push(letter);
            continue;
        }
        let name = letters.next().ok_or("a lone % at the end of a word: write %%")?;
        let value = values.get(&name).ok_or_else(|| format!("there is no placeholder %{name}"))?;
        filled.push_str(value);
    }
    Ok(filled)
}

fn fill(word: &str, values: &[(&str, &str)]) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), word);
    while let Some((before, behind)) = rest.split_once("$_") {
        let (name, after) = behind.split_once("_$").ok_or_else(|| format!("{word}: a placeholder ends with _$"))?;
        let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
            let known: Vec<String> = values.iter().map(|(name, _)| format!("$_{name}_$")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("there is no placeholder $_{name}_$ here; there is {known}"));
        };
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_inside_words_and_never_make_words() {
        let values = [("IP", "192.0.2.10"), ("IF", "eth 0; reboot")];
        let words =
            named("/sbin/ip addr add $_IP_$/24 dev $_IF_$ label $_IF_$:0 '$_IP_$ $' \"\"", &values).expect("a command");
        let expected = [
            "/sbin/ip",
            "addr",
            "add",
            "192.0.2.10/24",
            "dev",
            "eth 0; reboot",
            "label",
            "eth 0; reboot:0",
            "192.0.2.10 $",
            "",
        ];
        assert_eq!(words, expected);
        for (bad, says) in [
            ("x $_MAC_$", "there is $_IP_$, $_IF_$"),
            ("x $_IP", "ends with _$"),
            ("", "no program"),
            ("'' x", "no program"),
            ("'x", "quote"),
        ] {
            let why = named(bad, &values).expect_err(bad);
            assert!(why.contains(says), "{bad}: {why}");
        }
        assert_eq!(named("x $_IP_$", &[]), Err("there is no placeholder $_IP_$ here; there is none".to_owned()));
    }
}
