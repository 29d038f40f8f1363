# What people type. `make` alone says what there is.
PORT ?= 9999

help:
	@echo "make demo [PORT=9999]  a primary, two standbys and pgherd in front of them, to play with; Ctrl-C ends all"
	@echo "make test [STRICT=1]   all tests that this machine can run; STRICT=1: a skip is a failure"
	@echo "make sim [RUNS=100000] failovers in a simulated cluster, many more than in make test"
	@echo "make scenarios         real faults on real hosts (network namespaces), ONLY=s08 for a part of it"
	@echo "make fuzz              the parsers under libFuzzer, three minutes each"
	@echo "make lint              formatting, clippy, documentation"
	@echo "make release           a release build guided by a profile of real load: target/guided/release/pgherd"
	@echo "make bench             micro benchmarks of what each statement passes through"
	@echo "make instructions      instructions that one statement costs, beside what is kept; ARGS=--write keeps them"
	@echo "make compare           pgherd beside PgBouncer and pgpool-II: ONLY=simple CLIENTS=16,64 for a part of it"
	@echo "make sample            writes conf/pgherd.toml anew from the table of parameters"

demo: postgres
	cargo run --quiet -- demo --port $(PORT)

test: postgres
	STRICT=$(STRICT) tests/run.sh

sim:
	SIM_RUNS=$(or $(RUNS),100000) cargo test --profile sim --test sim -- --nocapture

scenarios: postgres
	cargo test --test scenarios -- --nocapture --test-threads=1 $(ONLY)

fuzz:
	tests/fuzz/run.sh

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --manifest-path benches/compare/relay/Cargo.toml --target-dir target/relay -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

bench:
	cargo bench --bench micro

release: postgres
	benches/compare/install.sh openssl python3
	benches/release/build.sh

instructions: postgres
	cargo build --release
	benches/instructions/run.py --pgherd target/release/pgherd $(ARGS)

# What the comparison measures; empty: everything, for about an hour. More options: benches/compare/run.py --help
ONLY ?=
CLIENTS ?=
# Which pgherd: make compare BUILD=release for the plain one.
BUILD ?= guided/release
compare: postgres
	benches/compare/install.sh
	$(if $(filter release,$(BUILD)),cargo build --release,benches/release/build.sh)
	cargo build --release --manifest-path benches/compare/relay/Cargo.toml --target-dir target/relay
	benches/compare/run.py --pgherd target/$(BUILD)/pgherd --relay target/relay/release/relay --json target/compare.json --svg target/compare.svg \
	    $(if $(ONLY),--only $(ONLY)) $(if $(CLIENTS),--clients $(CLIENTS)) $(COMPARE)

sample:
	PGHERD_REWRITE=1 cargo test --quiet --test config

# PostgreSQL's programs; installed if they are missing.
postgres:
	@tests/postgres.sh

.PHONY: help demo test sim scenarios fuzz lint release bench instructions compare sample postgres
