package main

import (
	"strings"
	"testing"
)

func TestFollowed(t *testing.T) {
	for _, tt := range []struct {
		command         string
		names, packages bool
	}{
		{"go test ./...", false, true},
		{"go test -v ./...", true, true},
		{"go test -json -run X ./a ./b", true, true},
		{"go test -v", true, false}, // one package: its tests have go test's own output
		{"go test -v -run ^X$", true, false},
		{"/usr/local/go/bin/go test -v example/...", true, true},
		{"make test V=1", false, false},
		{"make -v test", false, false},
		{"env go test -v ./...", true, false},
		{"go vet ./...", false, false},
	} {
		argv := strings.Fields(tt.command)
		if got := namesTests(argv); got != tt.names {
			t.Errorf("%s: names its tests %v, want %v", tt.command, got, tt.names)
		}
		if got := overPackages(argv); got != tt.packages {
			t.Errorf("%s: over packages %v, want %v", tt.command, got, tt.packages)
		}
	}
}
