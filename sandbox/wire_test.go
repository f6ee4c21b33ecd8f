package sandbox

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRequest(t *testing.T) {
	got, err := ParseRequest([]byte("1\x00go-exec\x00\x00/src\x00/tmp/a.test\x00-test.v\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	want := Request{Kind: "go-exec", Dir: "/src", Argv: []string{"/tmp/a.test", "-test.v", ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for packet, reason := range map[string]string{
		"":                                "NUL",
		"1\x00worker":                     "NUL",
		"2\x00worker\x00\x00/\x00cmd\x00": "version \"2\"",
		"1\x00worker\x00\x00/\x00":        "want a command",
		"\x00":                            "version \"\"",
	} {
		if _, err := ParseRequest([]byte(packet)); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: error %v, want one about %s", packet, err, reason)
		}
	}
}

// Whatever comes over the socket, the fields are those between the NULs.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("1\x00worker\x00label\x00/\x00cmd\x00arg\x00"))
	f.Add([]byte("1\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := ParseRequest(packet)
		if err != nil {
			return
		}
		fields := append([]string{"1", r.Kind, r.Label, r.Dir}, r.Argv...)
		if again := strings.Join(fields, "\x00") + "\x00"; again != string(packet) {
			t.Errorf("%q was read as %+v", packet, r)
		}
	})
}

func TestReplies(t *testing.T) {
	if got := string(Go(500, []string{"-a", "b"})); got != "G500\x00-a\x00b\x00" {
		t.Errorf("Go: %q", got)
	}
	if got := string(Refuse(125, "no")); got != "E\x7dno" {
		t.Errorf("Refuse: %q", got)
	}
	if got := string(Pass()); got != "P" {
		t.Errorf("Pass: %q", got)
	}
}
