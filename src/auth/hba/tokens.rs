//! `pg_hba.conf`'s words: fields between white space, lists between commas, quotes, comments, continued lines. Knows no
//! meaning of any word.

/// One word of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// Began with a quote: keywords and `@`, `+`, `/` mean nothing special then.
    pub(super) quoted: bool,
}

/// One field: the words of its list.
pub(super) type Field = Vec<Token>;

/// A line that holds anything: number of its first physical line, fields.
pub(super) type Line = (usize, Vec<Field>);

/// The lines of a file; an error has its line's number.
pub(super) fn lines(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut found = Vec::new();
    let mut physical = text.lines().enumerate();
    while let Some((index, line)) = physical.next() {
        let mut whole = line.trim_end_matches('\r').to_owned();
        // A backslash at the very end joins the next line.
        while whole.ends_with('\\') {
            whole.pop();
            match physical.next() {
                Some((_, line)) => whole.push_str(line.trim_end_matches('\r')),
                None => break,
            }
        }
        let fields = fields(&whole).map_err(|reason| (index + 1, reason))?;
        if !fields.is_empty() {
            found.push((index + 1, fields));
        }
    }
    Ok(found)
}

fn is_space(symbol: char) -> bool {
    matches!(symbol, ' ' | '\t')
}

fn fields(line: &str) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() || rest.starts_with('#') {
            return Ok(fields);
        }
        let mut field = Field::new();
        loop {
            let (token, after) = token(rest)?;
            field.push(token);
            // A comma goes on with the list, white space around the next word included.
            let Some(after) = after.strip_prefix(',') else {
                rest = after;
                break;
            };
            rest = after.trim_start_matches(is_space);
            if rest.is_empty() || rest.starts_with('#') {
                return Err("a word is missing behind the comma".into());
            }
        }
        fields.push(field);
    }
}

fn token(text: &str) -> Result<(Token, &str), String> {
    let mut symbols = text.char_indices().peekable();
    let mut word = String::new();
    let quoted = text.starts_with('"');
    let mut inside = false;
    while let Some(&(at, symbol)) = symbols.peek() {
        match symbol {
            '"' => {
                symbols.next();
                let doubled = inside && symbols.peek().is_some_and(|&(_, next)| next == '"');
                if doubled {
                    symbols.next();
                    word.push('"');
                } else {
                    inside = !inside;
                }
                continue;
            }
            _ if inside => {}
            ',' | '#' => return finish(word, quoted, &text[at..]),
            _ if is_space(symbol) => return finish(word, quoted, &text[at..]),
            _ => {}
        }
        word.push(symbol);
        symbols.next();
    }
    if inside {
        return Err("a quote is not closed".into());
    }
    finish(word, quoted, "")
}

fn finish(text: String, quoted: bool, rest: &str) -> Result<(Token, &str), String> {
    if text.is_empty() && !quoted {
        return Err("a word is missing before the comma".into());
    }
    Ok((Token { text, quoted }, rest))
}
