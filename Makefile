# Two commands for newcomers: make run, make test.
CARGO ?= cargo

.PHONY: run build install test test-browser lint check bench footprint dist container clean

run: ## Build and start the hub; prints where to go
	$(CARGO) run --release -- serve

build: ## The release binary: target/release/holt
	$(CARGO) build --release

install: build ## Install to PREFIX (default /usr/local)
	install -D -m 0755 target/release/holt $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/holt

test: ## Everything that can run here; browser tests join when Chromium and Node are there
	$(CARGO) build
	$(CARGO) test
	@tests/browser/run.sh

lint: ## rustfmt and clippy, warnings denied
	$(CARGO) fmt --check
	CLIPPY_CONF_DIR=tests/lint $(CARGO) clippy --all-targets -- -D warnings

check: lint test ## What CI runs

bench: ## Ratios against baselines in the same run
	$(CARGO) bench

footprint: build ## Binary size, cold start, memory
	$(CARGO) bench --bench footprint

dist: ## Release archives in dist/, for TARGETS (default: this machine's)
	CARGO="$(CARGO)" src/dist/dist.sh

container: build ## A container image: CONTAINER=podman|docker, IMAGE=holt
	mkdir -p target/container
	cp src/dist/Containerfile target/release/holt target/container/
	$(or $(CONTAINER),docker) build -f target/container/Containerfile -t $(or $(IMAGE),holt) target/container

clean:
	$(CARGO) clean
