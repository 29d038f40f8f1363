//! What takes long: left to `make scenarios`. Must not hold what `make test` relies on.

mod consent;
mod false_alarms;
mod joining;
mod links;
mod nodes;
mod operator;
mod pgpool;
mod primary;
mod promotion;
mod proxies;
mod proxy;
mod recovery;
mod strays;
mod three;
