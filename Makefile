# The README's two commands are `make demo` and `make test`; both do all the set-up on a bare Debian 12 with Rust and Node.
CARGO ?= cargo
SECONDS_SHOWN ?= 30
export CARGO_TERM_COLOR ?= never

# Sharing under Wayland needs PipeWire's library; the tests have it, the app takes it where it is.
ALL_FEATURES = --features portal
RUN_FEATURES = $(shell pkg-config --exists libpipewire-0.3 2>/dev/null && echo $(ALL_FEATURES))

FUZZ_SECONDS ?= 60
FUZZ_TARGETS = video_payload video_receiver audio_jitter congestion sdp frames room wire host_datagram host_rtcp host_twcc host_numbers

.PHONY: fuzz demo test mute-proof run lint check-systems bench network figures pictures deps deps-test browser-tests clean

deps:
	@sh packaging/deps.sh build

deps-test:
	@sh packaging/deps.sh build test

demo: deps
	$(CARGO) build --release --locked
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
	  target/release/tertulia demo --participants 4; \
	else \
	  mkdir -p artefacts; \
	  target/release/tertulia demo --participants 4 --headless --seconds $(SECONDS_SHOWN) --stats-json artefacts/demo.json --snapshot artefacts/demo.png \
	  && echo "The picture of the grid: artefacts/demo.png, the report: artefacts/demo.json"; \
	fi

run: deps
	$(CARGO) run --release --locked $(RUN_FEATURES)

lint: deps-test
	$(CARGO) fmt --check
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) clippy --locked $(ALL_FEATURES) --all-targets -- -D warnings
	@# Without the codecs in C, as other systems are checked.
	$(CARGO) clippy --locked --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	@sh packaging/deny.sh

# Windows and macOS, as far as this machine reaches.
check-systems:
	@sh packaging/systems.sh

test: deps-test lint
	@# Many tests run in real time over lossy links and real devices. One run that fails is repeated once, for everybody to see.
	$(CARGO) test --locked $(ALL_FEATURES) --no-fail-fast || { echo "FAILED once, see above; second and last run:" >&2; $(CARGO) test --locked $(ALL_FEATURES) --no-fail-fast; }
	$(MAKE) mute-proof
	$(MAKE) browser-tests

# The mute tests prove something only if each of them fails without the gate.
MUTE_TESTS := no_sample_passes_the_closed_gate no_sample_held_in_the_processing_leaks_after_opening nothing_but_silence_leaves_a_muted_engine
mute-proof:
	@$(CARGO) test --locked --features mute-gate-off --test mute_gate --no-run
	@for test in $(MUTE_TESTS); do \
	  if $(CARGO) test --locked --features mute-gate-off --test mute_gate -- --exact $$test >/dev/null 2>&1; then \
	    echo "$$test passes although the gate is compiled out" >&2; exit 1; \
	  fi; \
	done; echo "without the mute gate its tests fail, as they must"

browser-tests: deps-test
	$(CARGO) build --locked $(ALL_FEATURES)
	cd tests/browser && npm ci --no-audit --no-fund --ignore-scripts && TERTULIA_BIN=$(CURDIR)/target/debug/tertulia node --test call.test.mjs

# Needs `cargo install cargo-fuzz`; what it finds goes into tests/fuzz/corpus, which tests/fuzz_corpus.rs plays back.
fuzz:
	@for target in $(FUZZ_TARGETS); do \
	  cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target tests/fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

bench: deps
	$(CARGO) build --release --locked
	target/release/tertulia bench sfu
	target/release/tertulia bench join

# An independent witness for the network rows: real processes in network namespaces (root), over the switch of tests/netns.
network: deps-test
	$(CARGO) build --release --locked
	@mkdir -p artefacts
	TERTULIA_NETNS=required TERTULIA_BIN=$(CURDIR)/target/release/tertulia TERTULIA_ROWS_JSON=$(CURDIR)/artefacts/f-netns.json \
	  $(CARGO) test --locked $(ALL_FEATURES) --test network -- --ignored --nocapture

figures: deps-test
	$(CARGO) build --release --locked
	sh packaging/figures.sh
	$(MAKE) network
	python3 packaging/figures.py artefacts target/release/tertulia > docs/figures.md

pictures: deps-test
	$(CARGO) build --locked
	sh tests/pictures.sh

clean:
	$(CARGO) clean
	rm -rf artefacts tests/browser/node_modules
