package profiles

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		of   int64
		want int64
	}{
		{"0", 0, 0},
		{"512", 0, 512},
		{"512B", 0, 512},
		{"512K", 0, 512 * KiB},
		{"512M", 0, 512 * MiB},
		{"512m", 0, 512 * MiB},
		{"512Mi", 0, 512 * MiB},
		{"512MiB", 0, 512 * MiB},
		{"512 MiB", 0, 512 * MiB},
		{"512mib", 0, 512 * MiB},
		{"512MB", 0, 512e6},
		{"3GB", 0, 3e9},
		{"1.5GiB", 0, 1536 * MiB},
		{"0.5G", 0, 512 * MiB},
		{"1.9GiB", 0, 2040109465}, // the fraction of a byte is dropped
		{"2T", 0, 2 * TiB},
		{"8388607T", 0, 8388607 * TiB},
		{"9223372036854775807", 0, math.MaxInt64},
		{"50%", 2 * GiB, GiB},
		{"12.5%", 8 * GiB, GiB},
		{"100%", math.MaxInt64, math.MaxInt64},
		{"0%", GiB, 0},
		{"33.3 %", 1000, 333},
	} {
		got, err := ParseSize(tt.in, tt.of)
		if err != nil || got != tt.want {
			t.Errorf("ParseSize(%q, %d) = %d, %v; want %d", tt.in, tt.of, got, err, tt.want)
		}
	}
}

func TestParseSizeErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                     `"" is no size`,
		"   ":                  `"   " is no size`,
		" 1G":                  "is no size",
		"-1":                   "is negative",
		"-1G":                  "is negative",
		"+1G":                  "is no size",
		"G":                    "is no size",
		".5G":                  "is no size",
		"1.G":                  "is no size",
		"1..5G":                "is no size",
		"1.5.5G":               "unknown unit",
		"1e9":                  `unknown unit "e9"`,
		"0x10":                 `unknown unit "x10"`,
		"1_000":                `unknown unit "_000"`,
		"1,5G":                 `unknown unit ",5G"`,
		"5X":                   `unknown unit "X"`,
		"1GiBs":                `unknown unit "GiBs"`,
		"1 G B":                `unknown unit "G B"`,
		"1  G":                 "unknown unit",
		"1G ":                  "unknown unit",
		"٣G":                   "is no size",
		"max":                  "a run always has caps",
		"unlimited":            "a run always has caps",
		"inf":                  "a run always has caps",
		"8388608T":             "more than 8 EiB",
		"9223372036854775808":  "more than 8 EiB",
		"99999999999999999999": "too many digits",
		"1.00000000000000001G": "too many digits",
		"50%":                  "nothing to be a part of",
		"101%":                 "nothing to be a part of",
		"%":                    "is no size",
	} {
		if n, err := ParseSize(in, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSize(%q) = %d, %v; want an error with %q", in, n, err, want)
		}
	}
	for _, in := range []string{"100.1%", "101%", "99999999999999%"} {
		if n, err := ParseSize(in, GiB); err == nil || !strings.Contains(err.Error(), "more than the whole") {
			t.Errorf("ParseSize(%q of 1G) = %d, %v; want it refused as more than the whole", in, n, err)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0:              "0 B",
		512:            "512 B",
		KiB:            "1 KiB",
		768 * MiB:      "768 MiB",
		2010214400:     "1.9 GiB",
		3328 * MiB:     "3.25 GiB",
		2999975936:     "2.8 GiB",
		1023*MiB + 1:   "1023 MiB",
		GiB - 1:        "1024 MiB",
		31 * GiB:       "31 GiB",
		100 * GiB:      "100 GiB",
		2*TiB + 1:      "2 TiB",
		math.MaxInt64:  "8388608 TiB",
		-1:             "-1 B",
		5*GiB + 5*MiB:  "5 GiB",
		10*GiB + 1e8*9: "10.8 GiB",
	} {
		if got := FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

// FuzzParseSize: no text panics, no size is negative or wraps, a percentage is never
// more than its whole, and what FormatExact writes is read back.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"", "0", "512M", "1.5GiB", "50%", "-1", "8388608T", "18446744073709551615", "1e9", "3GB", "max", "0.0000001T", "100.0000000001%"} {
		f.Add(s, GiB)
	}
	f.Fuzz(func(t *testing.T, s string, of int64) {
		n, err := ParseSize(s, of)
		if err != nil {
			if n != 0 {
				t.Errorf("ParseSize(%q, %d) = %d beside the error %v", s, of, n, err)
			}
			if !strings.Contains(err.Error(), ";") {
				t.Errorf("ParseSize(%q): %v: it does not say what would be right", s, err)
			}
			return
		}
		if n < 0 {
			t.Fatalf("ParseSize(%q, %d) = %d", s, of, n)
		}
		if strings.HasSuffix(s, "%") && n > of {
			t.Errorf("ParseSize(%q, %d) = %d, more than the whole", s, of, n)
		}
		// The same figure in floating point, as a bound on what wrapping would do.
		digits, scale, unit, err := splitNumber(s)
		if err != nil {
			t.Fatal(err)
		}
		want := float64(digits) / float64(scale)
		if unit == "%" {
			want *= float64(of) / 100
		} else {
			want *= float64(sizeUnits[strings.ToLower(unit)])
		}
		if math.Abs(float64(n)-want) > 1+want*1e-9 {
			t.Errorf("ParseSize(%q, %d) = %d, want about %g", s, of, n, want)
		}
		back, err := ParseSize(FormatExact(n), 0)
		if err != nil || back != n {
			t.Errorf("FormatExact(%d) = %q, read back as %d, %v", n, FormatExact(n), back, err)
		}
	})
}
