package checker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhichUploadsMayBeLeft(t *testing.T) {
	at := func(second int) *time.Time {
		x := time.Date(2026, 1, 1, 12, 0, second, 0, time.UTC)
		return &x
	}
	first, second, open, long := Status{SubmittedAt: at(10), EndedAt: at(20)}, Status{SubmittedAt: at(30), EndedAt: at(40)}, Status{SubmittedAt: at(30)}, Status{SubmittedAt: at(10), EndedAt: at(50)}
	for name, c := range map[string]struct {
		begun int
		parts int
		jobs  []Status
		late  bool
		stray bool
	}{
		"while its job ran":                  {15, 0, []Status{first}, false, true},
		"long before its end":                {15, 0, []Status{long}, false, false},
		"after its job had ended":            {21, 0, []Status{first}, true, false},
		"at that moment":                     {20, 0, []Status{first}, true, false},
		"with something in it":               {21, 1, []Status{first}, false, false},
		"before any job was submitted":       {5, 0, []Status{first}, false, false},
		"between two jobs":                   {25, 0, []Status{first, second}, true, false},
		"while the second ran":               {35, 0, []Status{first, second}, false, true},
		"a job that is not known to be over": {25, 0, []Status{first, open}, false, false},
		"no job is known":                    {25, 0, nil, false, false},
	} {
		u := Upload{Key: "out/part-r-00000", ID: "u", Parts: c.parts, Begun: *at(c.begun)}
		require.Equal(t, c.late, u.Late(c.jobs), name)
		require.Equal(t, c.stray, u.Stray(c.jobs), name)
	}
}
