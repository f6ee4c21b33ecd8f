package profiles

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// The binary units. Memory in the kernel's world is binary: cgroup files, free(1)
// and systemd all mean 1024 by K.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
)

// sizeUnits are the units of ParseSize in lower case. A bare letter and "iB" are
// binary; a letter with "B" is decimal, as disks and vendors' pages count.
var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"k": KiB, "kib": KiB, "ki": KiB, "kb": 1e3,
	"m": MiB, "mib": MiB, "mi": MiB, "mb": 1e6,
	"g": GiB, "gib": GiB, "gi": GiB, "gb": 1e9,
	"t": TiB, "tib": TiB, "ti": TiB, "tb": 1e12,
}

// sizeForms ends an error about a size with what would have been right.
const sizeForms = "write a size such as 512M, 1.5GiB (1024 each) or 3GB (1000 each)"

// ParseSize reads a size in bytes: a decimal number and a unit. K, M, G and T
// count by 1024, with or without "iB" or "i" (512M is 512 MiB); with a plain "B"
// they count by 1000 (512MB is 512,000,000). Upper or lower case, and a blank
// before the unit, make no difference; a bare number is bytes. A fraction of a byte
// is dropped.
//
// A percentage, 0% to 100%, is taken of the second argument. It is an error where
// that is 0 or less: there is nothing to take it of.
func ParseSize(s string, of int64) (int64, error) {
	if strings.TrimSpace(s) == "" {
		return 0, fmt.Errorf("%q is no size; %s", s, sizeForms)
	}
	switch strings.ToLower(s) {
	case "max", "unlimited", "infinity", "inf", "none":
		return 0, fmt.Errorf("%q is no size: a run always has caps; %s", s, sizeForms)
	}
	if s[0] == '-' {
		return 0, fmt.Errorf("%q is negative; %s", s, sizeForms)
	}
	digits, scale, unit, err := splitNumber(s)
	if err != nil {
		return 0, err
	}
	if unit == "%" {
		if of <= 0 {
			return 0, fmt.Errorf("%q has nothing to be a part of here; %s", s, sizeForms)
		}
		n, ok := mulDiv(digits, uint64(of), scale*100)
		if !ok || n > of {
			return 0, fmt.Errorf("%q is more than the whole; give 0%% to 100%%, or a size such as 512M", s)
		}
		return n, nil
	}
	factor, ok := sizeUnits[strings.ToLower(unit)]
	if !ok {
		return 0, fmt.Errorf("%q has the unknown unit %q; %s", s, unit, sizeForms)
	}
	n, ok := mulDiv(digits, uint64(factor), scale)
	if !ok {
		return 0, fmt.Errorf("%q is more than 8 EiB, the largest size there is; %s", s, sizeForms)
	}
	return n, nil
}

// splitNumber cuts "1.5 GiB" into 15, 10 and "GiB".
func splitNumber(s string) (digits, scale uint64, unit string, err error) {
	scale = 1
	i, seen, point := 0, 0, false
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' && !point && seen > 0 {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		if digits > (math.MaxUint64-9)/10 || scale > 1e15 {
			return 0, 0, "", fmt.Errorf("%q has too many digits; %s", s, sizeForms)
		}
		digits = digits*10 + uint64(c-'0')
		if point {
			scale *= 10
		}
		seen++
	}
	if seen == 0 || s[i-1] == '.' {
		return 0, 0, "", fmt.Errorf("%q is no size; %s", s, sizeForms)
	}
	return digits, scale, strings.TrimPrefix(s[i:], " "), nil
}

// mulDiv is a*b/c without overflow on the way; ok is false if it exceeds an int64.
func mulDiv(a, b, c uint64) (n int64, ok bool) {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, c)
	if q > math.MaxInt64 {
		return 0, false
	}
	return int64(q), true
}

// FormatSize writes n bytes for a reader, in binary units: exactly where two decimals
// suffice ("768 MiB", "3.25 GiB"), otherwise to the nearest tenth ("1.9 GiB").
func FormatSize(n int64) string {
	if n < 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	unit, name := int64(1), "B"
	switch {
	case n >= TiB:
		unit, name = TiB, "TiB"
	case n >= GiB:
		unit, name = GiB, "GiB"
	case n >= MiB:
		unit, name = MiB, "MiB"
	case n >= KiB:
		unit, name = KiB, "KiB"
	}
	return formatIn(n, unit) + " " + name
}

// formatIn writes n/unit as FormatSize does.
func formatIn(n, unit int64) string {
	whole, rest := n/unit, n%unit
	hundredths := rest * 100 / unit
	if rest*100%unit != 0 {
		tenths := (rest*10 + unit/2) / unit
		whole, hundredths = whole+tenths/10, tenths%10*10
	}
	s := fmt.Sprintf("%d.%02d", whole, hundredths)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// FormatExact writes n bytes so that ParseSize reads the same number again, in the
// largest binary unit that divides it: "768M", "1536M", "2999975936".
func FormatExact(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{TiB, "T"}, {GiB, "G"}, {MiB, "M"}, {KiB, "K"}} {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
