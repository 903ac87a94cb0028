// Package builtin holds the built-in programs, written with the same SDK that users have.
package builtin

// Info describes a built-in program.
type Info struct {
	Name    string
	Usage   string // "grep [-F] [-i] [-v] [-c] PATTERN"
	Example string // a canonical line
	Doc     string // one line
}

// List is all of them, by name.
func List() []Info { panic("unwritten") }

// Check says whether the program exists (an error suggests the nearest name otherwise), whether
// its args are right, and whether it is map-only with them.
func Check(name string, args []string) (mapOnly bool, err error) { panic("unwritten") }
