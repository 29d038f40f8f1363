//! The `pgherd` program: hands the command line to [`pgherd::cli`].

fn main() {}
