// Package bytesize reads and writes sizes as people do: 64MiB, 128MB, 1g.
package bytesize

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// units in bytes. Letters alone mean powers of two, as in Hadoop and Java.
func unit(s string) (int64, bool) {
	n, ok := map[string]int64{
		"": 1, "b": 1,
		"k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1e3,
		"m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1e6,
		"g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1e9,
		"t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1e12,
		"p": 1 << 50, "pi": 1 << 50, "pib": 1 << 50, "pb": 1e15,
		"e": 1 << 60, "ei": 1 << 60, "eib": 1 << 60, "eb": 1e18,
	}[strings.ToLower(s)]
	return n, ok
}

// Parse reads a size in bytes: a decimal number, which may have a fraction, and a
// unit in any case. KB, MB, … are powers of 1000; KiB, MiB, … and K, M, … of
// 1024. A size that is no whole number of bytes is rounded down.
func Parse(s string) (int64, error) {
	text := strings.TrimSpace(s)
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	number, name := text[:end], strings.TrimSpace(text[end:])
	factor, ok := unit(name)
	if !ok || number == "" || len(number) > 40 {
		return 0, notASize(s)
	}
	// Exact, so that the greatest sizes come out right, too.
	n, ok := new(big.Rat).SetString(number)
	if !ok || strings.HasPrefix(number, ".") || strings.HasSuffix(number, ".") {
		return 0, notASize(s)
	}
	n.Mul(n, new(big.Rat).SetInt64(factor))
	bytes := new(big.Int).Quo(n.Num(), n.Denom())
	if !bytes.IsInt64() {
		return 0, fmt.Errorf("%q is too big a size", s)
	}
	return bytes.Int64(), nil
}

func notASize(s string) error {
	return fmt.Errorf("%q is not a size: write it like 64MiB, 128MB, 1g or 65536", s)
}

// Format writes a size for people, which Parse reads back: whole units if the
// size is that (128 MiB), else one decimal place (1.5 GiB).
func Format(n int64) string {
	if n < 0 {
		return "-" + Format(-max(n, -1<<62))
	}
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	const letters = "KMGTPE"
	i, factor := 0, int64(1<<10)
	for i < len(letters)-1 && n/factor >= 1<<10 {
		i, factor = i+1, factor<<10
	}
	name := " " + letters[i:i+1] + "iB"
	if n%factor == 0 {
		return strconv.FormatInt(n/factor, 10) + name
	}
	return strconv.FormatFloat(float64(n)/float64(factor), 'f', 1, 64) + name
}
