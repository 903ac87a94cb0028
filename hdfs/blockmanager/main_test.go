package blockmanager

import (
	"flag"
	"os"
	"testing"
)

// TestMain has what is random tried 20 times and not 100, unless the command line says how often; `make nightly` does.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "rapid.checks" })
	if !said {
		flag.Set("rapid.checks", "20")
	}
	os.Exit(m.Run())
}
