//! `[routing]`: the lists, and the nodes that they name.

use super::build::Build;
use super::problem::Problem;
use super::read::Reader;
use super::settings::{Node, Redirect, RedirectTarget, Routing, TooLate};
use super::value::{self, Item};

pub(super) fn routing(build: &mut Build, reader: Reader<'_>, nodes: &[Node]) -> Routing {
    let mut redirects = |name| {
        let items = reader.items(name);
        items.iter().filter_map(|item| redirect(build, item, nodes)).collect::<Vec<_>>()
    };
    let routing = Routing {
        load_balance: reader.flag("load_balance"),
        statement_level: reader.flag("statement_level"),
        consistency: reader.word("consistency"),
        delay_threshold: reader.size("delay_threshold"),
        delay_threshold_by_time: reader.duration("delay_threshold_by_time"),
        too_late: match reader.flag("prefer_lower_delay_standby") {
            true => TooLate::OtherStandby,
            false => TooLate::Primary,
        },
        primary_routing_query_pattern_list: reader.texts("primary_routing_query_pattern_list"),
        app_name_redirect_list: redirects("app_name_redirect_list"),
        database_redirect_list: redirects("database_redirect_list"),
        user_redirect_list: redirects("user_redirect_list"),
        read_only_functions: reader.texts("read_only_functions"),
        write_functions: reader.texts("write_functions"),
    };
    let writes = reader.items("write_functions");
    for item in reader.items("read_only_functions") {
        if let Some(write) = writes.iter().find(|write| write.text == item.text) {
            let problem = Problem::at(item.span.clone(), format!("`{}` is in both lists of functions", item.text));
            build.problems.push(problem.also(write.span.clone(), "disagrees with this"));
        }
    }
    if routing.statement_level && !routing.load_balance {
        let message = "`statement_level` chooses among servers, but `load_balance` sends everything to the primary";
        build.clash((reader, "statement_level"), (reader, "load_balance"), message);
    }
    routing
}

/// One `pattern:target` or `pattern:target(share)`.
fn redirect(build: &mut Build, item: &Item, nodes: &[Node]) -> Option<Redirect> {
    match parse(&item.text, nodes) {
        Ok(redirect) => Some(redirect),
        Err(right) => {
            build.complain(Some(item.span.clone()), format!("bad redirect `{}`", item.text), &right);
            None
        }
    }
}

fn parse(text: &str, nodes: &[Node]) -> Result<Redirect, String> {
    // The pattern may contain colons, the target may not.
    let (pattern, rest) = text
        .rsplit_once(':')
        .ok_or("write \"pattern:target\" or \"pattern:target(share)\", as in \"report.*:standby(0.5)\"")?;
    let (target, ratio) = match rest.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        Some((target, ratio)) => (target, ratio.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio))),
        None => (rest, Some(1.0)),
    };
    let ratio = ratio.ok_or("the share is a number from 0 to 1")?;
    if pattern.is_empty() {
        return Err("the pattern is empty; \".*\" matches every name".to_owned());
    }
    regex::Regex::new(pattern).map_err(|error| value::explain(&error))?;
    Ok(Redirect { pattern: pattern.to_owned(), target: find_target(target, nodes)?, ratio })
}

fn find_target(target: &str, nodes: &[Node]) -> Result<RedirectTarget, String> {
    let by_name = |node: &&Node| node.id.to_string() == target || node.name == target;
    match target {
        "primary" => Ok(RedirectTarget::Primary),
        "standby" => Ok(RedirectTarget::Standby),
        _ => nodes.iter().find(by_name).map(|node| RedirectTarget::Node(node.id)).ok_or_else(|| {
            let known: Vec<_> = nodes.iter().map(|node| format!("{} ({})", node.id, node.name)).collect();
            format!("the target is primary, standby, or a node: {}", known.join(", "))
        }),
    }
}
