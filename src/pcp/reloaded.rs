//! What a reload did, in words and in JSON, for whoever asked for it and for the log. Must not apply anything.

use serde_json::{Value, json};

use crate::config::{Change, Reload};

/// What a reload did.
#[derive(Debug, Clone, Default)]
pub struct Reloaded {
    /// What differs between the two files.
    pub changes: Vec<Change>,
    /// What holds only after a new start, for people; besides changes whose class says so.
    pub left: Vec<String>,
}

impl Reloaded {
    /// In one line, with the names of what changed.
    pub fn in_words(&self) -> String {
        self.tell(|change| change.key.clone())
    }

    /// The same with the old and new values, for the log.
    pub fn in_detail(&self) -> String {
        self.tell(|change| format!("{}: {} -> {}", change.key, change.old, change.new))
    }

    fn tell(&self, show: impl Fn(&Change) -> String) -> String {
        let list = |changes: &[&Change]| changes.iter().map(|change| show(change)).collect::<Vec<_>>().join(", ");
        let (waits, holds): (Vec<_>, Vec<_>) = self.changes.iter().partition(|one| one.class == Reload::Restart);
        let mut text = match holds.len() {
            0 => "reloaded: nothing has changed".to_owned(),
            count => format!("reloaded: {count} changed ({})", list(&holds)),
        };
        if !waits.is_empty() {
            text += &format!("; after a new start only: {}", list(&waits));
        }
        if !self.left.is_empty() {
            text += &format!("; {}", self.left.join("; "));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let change = |one: &Change| {
            let holds = match one.class {
                Reload::Live => "now",
                Reload::NewSessions => "for new sessions",
                Reload::Restart => "after a new start",
            };
            json!({ "parameter": one.key, "old": one.old, "new": one.new, "holds": holds })
        };
        let changes = self.changes.iter().map(change).collect::<Vec<_>>();
        json!({ "text": self.in_words(), "changes": changes, "left": self.left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_and_what_waits_are_told_apart() {
        assert_eq!(Reloaded::default().in_words(), "reloaded: nothing has changed");
        let change = |key: &str, class| Change { key: key.to_owned(), old: "1".into(), new: "2".into(), class };
        let changes = vec![
            change("pool.size", Reload::Live),
            change("listen.port", Reload::Restart),
            change("pool.mode", Reload::NewSessions),
        ];
        let told = Reloaded { changes, left: vec!["more".to_owned()] };
        let words = "reloaded: 2 changed (pool.size, pool.mode); after a new start only: listen.port; more";
        assert_eq!(told.in_words(), words);
        let detail = "reloaded: 2 changed (pool.size: 1 -> 2, pool.mode: 1 -> 2); after a new start only: listen.port: 1 -> 2; more";
        assert_eq!(told.in_detail(), detail);
        let json = told.json();
        assert_eq!((&json["changes"][1]["holds"], &json["left"][0]), (&json!("after a new start"), &json!("more")));
    }
}
