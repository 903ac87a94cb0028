package bytesize_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/bytesize"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "65536": 65536, "1B": 1, "64MiB": 64 << 20, "128MB": 128e6, "1g": 1 << 30, "1 GiB": 1 << 30, " 2k ": 2048,
		"1.5KiB": 1536, "0.5k": 512, "1.0001k": 1024, "8Ti": 8 << 40, "9223372036854775807": math.MaxInt64,
	} {
		got, err := bytesize.Parse(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "MiB", "-1", "1x", "1e6", "1..2", ".5k", "5.", "0x10", "1 2", "ten", "9223372036854775808", "8E", "1MiBs"} {
		_, err := bytesize.Parse(in)
		require.ErrorContains(t, err, in, "the error names the input")
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 128 << 20: "128 MiB", 1<<30 + 1<<29: "1.5 GiB", 1 << 60: "1 EiB", -2048: "-2 KiB",
	} {
		require.Equal(t, want, bytesize.Format(n))
	}
}

func TestFormatIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<62).Draw(t, "n")
		back, err := bytesize.Parse(bytesize.Format(n))
		require.NoError(t, err)
		require.InEpsilon(t, float64(n)+1, float64(back)+1, 0.06)
	})
}

func FuzzParse(f *testing.F) {
	f.Add("64MiB")
	f.Add("1.5 g")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := bytesize.Parse(s); err == nil && n < 0 {
			t.Fatalf("%q is %d", s, n)
		}
	})
}
