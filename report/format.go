package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// byteUnits are the units of FormatBytes, each 1024 times the one before.
var byteUnits = [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// FormatBytes writes n bytes for a person: "768 MiB", "1.9 GiB". It rounds to the
// nearest whole unit, or to a tenth below ten.
func FormatBytes(n int64) string {
	value, unit := scaleBytes(n)
	return value + " " + unit
}

func scaleBytes(n int64) (value, unit string) {
	v, u := float64(n), 0
	for math.Abs(v) >= 1024 && u < len(byteUnits)-1 {
		v /= 1024
		u++
	}
	if math.Round(math.Abs(v)) >= 1024 && u < len(byteUnits)-1 { // 1023.9 KiB reads 1 MiB
		v /= 1024
		u++
	}
	if u > 0 && math.Abs(v) < 9.95 {
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0"), byteUnits[u]
	}
	return strconv.FormatFloat(v, 'f', 0, 64), byteUnits[u]
}

// formatBytesOf writes a part of a whole, naming a common unit once: "1.4 of 1.9 GiB".
func formatBytesOf(part, whole int64) string {
	pv, pu := scaleBytes(part)
	wv, wu := scaleBytes(whole)
	if pu == wu {
		return pv + " of " + wv + " " + wu
	}
	return pv + " " + pu + " of " + wv + " " + wu
}

// FormatDuration writes d for a person: "40 ms", "9.8 s", "42 s", "3 min 5 s", "2 h 4 min".
func FormatDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + FormatDuration(-d)
	case d < 99500*time.Microsecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return strings.TrimSuffix(strconv.FormatFloat(d.Seconds(), 'f', 1, 64), ".0") + " s"
	case d < 59500*time.Millisecond:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		s := int64(d.Round(time.Second) / time.Second)
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	default:
		m := int64(d.Round(time.Minute) / time.Minute)
		return fmt.Sprintf("%d h %d min", m/60, m%60)
	}
}

// FormatCount writes n with a comma between thousands: "10,412".
func FormatCount(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return FormatCount(n) + " " + many
}

// Printable makes s safe to show on a terminal, on one line: whatever could move the
// cursor, change colours or reorder text (control characters, format characters such
// as bidirectional overrides, line separators, bytes that are no UTF-8) is written as
// a Go escape. Labels, arguments and test names are chosen by the code under test.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}
