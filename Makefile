# make build   bin/sandrun
# make demo    sandrun over a module with a memory hog, a fork bomb and the like
# make test    lint, every test (those of the kernel run in the guest), the demo checked
# make bench   what a worker costs, beside bwrap, crun and runc
#
# Each target installs what it needs and says so; see internal/setup/need.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT    := .cache/bin/golangci-lint-v2.15.0
NEED    := internal/setup/need

# One static file: it starts faster than a dynamic one, and runs in any root.
LDFLAGS := -linkmode external -extldflags -static -X main.version=$(VERSION)
BUILD   := go build -buildvcs=false -trimpath -tags osusergo,netgo -ldflags '$(LDFLAGS)'

.PHONY: build demo test bench lint fuzz install-kernel setup setup-build setup-bench clean
.DEFAULT_GOAL := build

# Tests of several packages build at the same time: one after the other.
build: setup-build
	@mkdir -p bin
	CGO_ENABLED=1 flock bin $(BUILD) -o bin/sandrun ./cmd/sandrun

# The demo's bad tests are killed, so status 1 is what it should end with.
demo: build install-kernel
	@echo 'setup: compiling the demo and the standard library here, where that is quicker than in the guest' >&2
	@cd testdata/demo && go test -run '^$$' ./... >/dev/null
	@cd testdata/demo && ../../bin/sandrun exec --profile t3.small -- go test ./...; \
		status=$$?; test $$status -eq 1 || { echo "demo: exit status $$status, want 1" >&2; exit 1; }

test: lint setup install-kernel
	go test -buildvcs=false -p 2 -timeout 20m ./...

bench: build setup-bench install-kernel
	go run -buildvcs=false ./internal/bench

lint: setup-build $(LINT)
	$(LINT) run ./...

$(LINT):
	@echo 'setup: building golangci-lint, a few minutes the first time' >&2
	GOBIN=$(CURDIR)/.cache/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	@mv .cache/bin/golangci-lint $@

# Every fuzz test of the tree, for FUZZTIME each.
FUZZTIME := 10s
fuzz: setup-build
	@grep -rno --include='*_test.go' --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file _ name; do \
		go test -buildvcs=false -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

# The guest kernel, for machines whose own cgroups cannot be used. No root is needed.
install-kernel: build
	@$(NEED) /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
	@bin/sandrun kernel status >/dev/null 2>&1 || bin/sandrun kernel install

setup-build:
	@$(NEED) gcc=gcc /usr/include/stdio.h=libc6-dev

setup-bench:
	@$(NEED) bwrap=bubblewrap crun=crun runc=runc

# passt is the guest's network; systemd and dbus are booted inside the guest by tests.
setup: setup-build
	@$(NEED) passt=passt /lib/systemd/systemd=systemd dbus-daemon=dbus \
		'/lib/*/security/pam_systemd.so=libpam-systemd' /usr/lib/systemd/user/dbus.socket=dbus-user-session

clean:
	rm -rf bin .cache
