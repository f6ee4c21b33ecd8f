package report

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestFormatBytes(t *testing.T) {
	const kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	for _, test := range []struct {
		in   int64
		want string
	}{
		{0, "0 B"},
		{1, "1 B"},
		{9, "9 B"},
		{1023, "1023 B"},
		{kib, "1 KiB"},
		{kib + kib/2, "1.5 KiB"},
		{768 * mib, "768 MiB"},
		{9*mib + 970*kib, "9.9 MiB"},
		{9*mib + 980*kib, "10 MiB"}, // 9.947, 9.957
		{1023*kib + 400, "1023 KiB"},
		{1023*kib + 600, "1 MiB"},
		{gib - 1, "1 GiB"},
		{1_950_000_000, "1.8 GiB"},
		{2 * gib, "2 GiB"},
		{31 * gib, "31 GiB"},
		{1 << 40, "1 TiB"},
		{math.MaxInt64, "8 EiB"},
		{math.MinInt64, "-8 EiB"},
		{-1, "-1 B"},
	} {
		if got := FormatBytes(test.in); got != test.want {
			t.Errorf("FormatBytes(%d) = %q, want %q", test.in, got, test.want)
		}
	}
	for _, test := range []struct {
		part, whole int64
		want        string
	}{
		{1503238553, 2040109465, "1.4 of 1.9 GiB"},
		{700 * mib, 2 * gib, "700 MiB of 2 GiB"},
		{0, gib, "0 B of 1 GiB"},
	} {
		if got := formatBytesOf(test.part, test.whole); got != test.want {
			t.Errorf("formatBytesOf(%d, %d) = %q, want %q", test.part, test.whole, got, test.want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0:                           "0 ms",
		400 * time.Microsecond:      "0 ms",
		40 * time.Millisecond:       "40 ms",
		99499 * time.Microsecond:    "99 ms",
		99500 * time.Microsecond:    "0.1 s",
		9800 * time.Millisecond:     "9.8 s",
		9949 * time.Millisecond:     "9.9 s",
		9951 * time.Millisecond:     "10 s",
		59400 * time.Millisecond:    "59 s",
		59600 * time.Millisecond:    "1 min 0 s",
		185 * time.Second:           "3 min 5 s",
		3599600 * time.Millisecond:  "1 h 0 min",
		2*time.Hour + 4*time.Minute: "2 h 4 min",
		-time.Second:                "-1 s",
	} {
		if got := FormatDuration(in); got != want {
			t.Errorf("FormatDuration(%v) = %q, want %q", in, got, want)
		}
	}
}

func TestFormatCount(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", 10412: "10,412", 1234567: "1,234,567", -1000: "-1,000",
		math.MaxInt64: "9,223,372,036,854,775,807", math.MinInt64: "-9,223,372,036,854,775,808",
	} {
		if got := FormatCount(in); got != want {
			t.Errorf("FormatCount(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"example/a":              "example/a",
		"naïve/日本":               "naïve/日本",
		"a\x1b[31mb\x07":         `a\x1b[31mb\a`,
		"a\nb\r\tc\x00\x7f":      `a\nb\r\tc\x00\x7f`,
		"a\u009b31mb":            `a\u009b31mb`, // CSI in one character
		"a\u202eb\u2066\u200b":   `a\u202eb\u2066\u200b`,
		"a\u2028b":               `a\u2028b`,
		"a\xffb\xc3":             `a\xffb\xc3`,
		"a\ufffdb":               "a\ufffdb", // a real one, which is printable
		"'quotes' \"and\" \\x1b": `'quotes' "and" \x1b`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("example/a\x1b]0;title\x07\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Printable(%q) = %q", s, got)
		}
		if again := Printable(got); again != got {
			t.Errorf("Printable(%q) = %q, of which it makes %q", s, got, again)
		}
	})
}
