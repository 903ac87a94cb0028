package builtin

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPatternThatDoesNotCompileIsNamedWithItsPlace(t *testing.T) {
	for pattern, want := range map[string]string{
		"a(b":       `grep: pattern "a(b": at its end: missing closing )`,
		"a[b":       `grep: pattern "a[b": at its end: missing closing ]`,
		`a\`:        `grep: pattern "a\\": at its end: trailing backslash at end of expression`,
		"(a)b)c":    `grep: pattern "(a)b)c": at character 5, ")c": unexpected )`,
		"ab[z-a]":   `grep: pattern "ab[z-a]": at character 4, "z-a": invalid character class range`,
		"x**":       `grep: pattern "x**": at character 2, "**": invalid nested repetition operator`,
		"a{2000}":   `grep: pattern "a{2000}": at character 2, "{2000}": invalid repeat count`,
		`ab\8`:      `grep: pattern "ab\\8": at character 3, "\\8": invalid escape sequence`,
		"(?P<n>a)(": `grep: pattern "(?P<n>a)(": at its end: missing closing )`,
		"é*+":       `grep: pattern "é*+": at character 2, "*+": invalid nested repetition operator`,
	} {
		_, err := Check("grep", []string{"-i", pattern})
		require.ErrorContains(t, err, want)
	}
	_, err := Check("grep", []string{"--count", "x"})
	require.ErrorContains(t, err, "grep: --count is not a flag")
	_, err = Check("grep", []string{"--", "--count"})
	require.NoError(t, err)
}
