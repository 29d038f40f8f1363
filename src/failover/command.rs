//! Hooks as text: a command line is divided into words first and its placeholders are put in afterwards, so that no value becomes a word
//! of its own and none is seen by a shell. Pure; `runner` starts the program.

use std::collections::BTreeMap;

use crate::support::command_line::lettered;

/// One node, as placeholders see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Its number; none: −1.
    pub id: Option<u16>,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: String,
    /// Its data folder.
    pub data: String,
}

/// What a hook is about; pgpool-II's placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// `%d %h %p %D`
    pub node: Place,
    /// `%m %H %r %R`: the primary now, or to be.
    pub new: Place,
    /// `%P %N %S`, and `%M`: the primary before.
    pub old: Place,
}

impl Subject {
    fn values(&self) -> BTreeMap<char, String> {
        let id = |place: &Place| place.id.map_or("-1".to_owned(), |id| id.to_string());
        let Self { node, new, old } = self;
        BTreeMap::from([
            ('d', id(node)),
            ('h', node.host.clone()),
            ('p', node.port.clone()),
            ('D', node.data.clone()),
            ('m', id(new)),
            ('H', new.host.clone()),
            ('r', new.port.clone()),
            ('R', new.data.clone()),
            ('P', id(old)),
            ('M', id(old)),
            ('N', old.host.clone()),
            ('S', old.port.clone()),
            ('%', "%".to_owned()),
        ])
    }
}

/// The program and its arguments.
///
/// # Errors
/// For people: a quote that does not end, an unknown placeholder, nothing at all.
pub fn arguments(command: &str, subject: &Subject) -> Result<Vec<String>, String> {
    lettered(command, &subject.values())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let place = |id: u16, host: &str| Place {
            id: Some(id),
            host: host.to_owned(),
            port: format!("543{id}"),
            data: format!("/data {id}"),
        };
        Subject { node: place(0, "a"), new: place(1, "b; rm -rf /"), old: place(0, "a") }
    }

    #[test]
    fn pgpools_placeholders_become_arguments_and_never_words() {
        let line = "hooks/failover.sh %d %h %p %D %m %H %M %P \"%r\" %R %N %S 100%%";
        let words = arguments(line, &subject()).expect("a command");
        let expected = [
            "hooks/failover.sh",
            "0",
            "a",
            "5430",
            "/data 0",
            "1",
            "b; rm -rf /",
            "0",
            "0",
            "5431",
            "/data 1",
            "a",
            "5430",
            "100%",
        ];
        assert_eq!(words, expected);
        let none = Subject { new: Place::default(), ..subject() };
        assert_eq!(arguments("x %m \"%H\" ''", &none).expect("a command"), ["x", "-1", "", ""]);
    }

    #[test]
    fn words_are_divided_as_by_a_shell_that_does_nothing_else() {
        let split = |line| arguments(line, &subject());
        assert_eq!(split(r#"sh -c 'echo "$1" %d' x\ y"#).expect("a command"), ["sh", "-c", "echo \"$1\" 0", "x y"]);
        for bad in ["", "  ", "'a", "a %z", "a %", "a \\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
