package checker

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newBook() *Book { return NewBook(func() time.Time { return noon }) }

// second is a moment, so many seconds after noon.
func second(n int) *time.Time {
	t := noon.Add(time.Duration(n) * time.Second)
	return &t
}

func running(name, phase string) Status {
	return Status{ID: "s-" + name, Name: name, State: "RUNNING", Phase: phase, SubmittedAt: second(0)}
}

func ended(name, state string) Status {
	return Status{ID: "s-" + name, Name: name, State: state, SubmittedAt: second(0), EndedAt: second(1)}
}

// seen is a glimpse of a/ with these parts, all of 3 bytes; of is the job of _SUCCESS, which names the parts that are listed in it.
func seen(parts string, of string, names ...string) Glimpse {
	g := Glimpse{Prefix: "a/", Steady: true}
	for _, p := range strings.Fields(parts) {
		g.Objects = append(g.Objects, Object{"a/" + p, 3, "e"})
	}
	if of != "" {
		g.Objects = append(g.Objects, Object{"a/_SUCCESS", 9, "m"})
		g.Manifest = &Manifest{Job: "s-" + of}
		for _, n := range names {
			g.Manifest.Parts = append(g.Manifest.Parts, Part{Key: "a/" + n, Size: 3, ETag: "e", Records: 1})
		}
	}
	return g
}

// look is one whole look.
func look(b *Book, g []Glimpse, jobs ...Status) { b.Look().Judge(g, jobs) }

// rules are the rules that something was found against.
func rules(b *Book) (found []string) {
	for _, d := range b.Found() {
		found = append(found, d.Rule)
	}
	return found
}

func intend(b *Book, name string, ends ...string) {
	b.Intend(Job{Name: name, Prefix: "a/", Ends: ends})
	b.Acknowledged(name, "s-"+name)
}

// TestAJobsWholeLife: what a right cluster shows is no discrepancy.
func TestAJobsWholeLife(t *testing.T) {
	b := newBook()
	b.Intend(Job{Name: "j", Prefix: "a/", Ends: []string{"COMPLETED"}})
	look(b, []Glimpse{seen("", "")})
	b.Acknowledged("j", "s-j")
	look(b, []Glimpse{seen("", "")}, running("j", "PLANNING"))
	look(b, []Glimpse{seen("", "")}, running("j", "MAPPING"))
	look(b, []Glimpse{seen("", "")}, running("j", "REDUCING"))
	look(b, []Glimpse{seen("", "")}, running("j", "MAPPING")) // segments were lost
	look(b, []Glimpse{seen("p0", "")}, running("j", "COMMITTING"))
	look(b, []Glimpse{seen("p0 p1", "j", "p0", "p1")}, running("j", "COMMITTING"))
	require.Equal(t, []string{"j"}, b.Look().Judge([]Glimpse{seen("p0 p1", "j", "p0", "p1")}, []Status{ended("j", "COMPLETED")}))
	require.Empty(t, b.Look().Judge([]Glimpse{seen("p0 p1", "j", "p0", "p1")}, []Status{ended("j", "COMPLETED")}))
	require.Empty(t, b.Found())
	require.Empty(t, b.Open())
}

// TestPlantedInListings: each thing that must not be seen in the store is.
func TestPlantedInListings(t *testing.T) {
	early, stays, exactly := "nothing is visible before the commit, or after none", "a result stays", "_SUCCESS names exactly the parts"
	unsteady := seen("p0", "j", "p0")
	unsteady.Steady = false
	resized := seen("p0", "j", "p0")
	resized.Objects[0].Size = 4
	replaced := seen("p0", "j", "p0")
	replaced.Objects[0].ETag = "other"
	for name, c := range map[string]struct {
		before Status // known before the look
		seen   Glimpse
		after  Status
		want   string
	}{
		"a part while planning":                   {Status{}, seen("p0", ""), running("j", "PLANNING"), early},
		"a part while reducing":                   {running("j", "REDUCING"), seen("p0", ""), running("j", "REDUCING"), early},
		"a part, and a cancel under way":          {running("j", "REDUCING"), seen("p0", ""), Status{ID: "s-j", Name: "j", State: "CANCEL_PENDING"}, early},
		"a part of a job that was just cancelled": {running("j", "REDUCING"), seen("p0", ""), ended("j", "CANCELLED"), early},
		"a part of a cancelled job":               {ended("j", "CANCELLED"), seen("p0", ""), ended("j", "CANCELLED"), early},
		"a part of a failed job":                  {ended("j", "FAILED"), seen("p0", ""), ended("j", "FAILED"), early},
		"_SUCCESS of a failed job":                {ended("j", "FAILED"), seen("", "j"), ended("j", "FAILED"), early},
		"no _SUCCESS of a completed job":          {ended("j", "COMPLETED"), seen("p0", ""), ended("j", "COMPLETED"), stays},
		"nothing of a completed job":              {ended("j", "COMPLETED"), seen("", ""), ended("j", "COMPLETED"), stays},
		"somebody else's _SUCCESS":                {ended("j", "COMPLETED"), seen("p0", "x", "p0"), ended("j", "COMPLETED"), "a result stays until another replaces it"},
		"a _SUCCESS that changes":                 {ended("j", "COMPLETED"), unsteady, ended("j", "COMPLETED"), "a result stays until another replaces it"},
		"a part that is named and not there":      {running("j", "COMMITTING"), seen("p0", "j", "p0", "p1"), running("j", "COMMITTING"), exactly},
		"a part that is there and not named":      {ended("j", "COMPLETED"), seen("p0 p1", "j", "p0"), ended("j", "COMPLETED"), exactly},
		"a part that is named twice":              {ended("j", "COMPLETED"), seen("p0", "j", "p0", "p0"), ended("j", "COMPLETED"), exactly},
		"a part of another size":                  {ended("j", "COMPLETED"), resized, ended("j", "COMPLETED"), exactly},
		"a part that was replaced":                {ended("j", "COMPLETED"), replaced, ended("j", "COMPLETED"), exactly},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			intend(b, "j", "COMPLETED", "FAILED", "CANCELLED")
			if c.before.ID != "" {
				look(b, nil, c.before)
			}
			look(b, []Glimpse{c.seen}, c.after)
			require.Equal(t, []string{c.want}, rules(b), b.Found())
		})
	}
}

// TestPlantedInStates: each thing that a cluster must not say of a job.
func TestPlantedInStates(t *testing.T) {
	other := ended("j", "COMPLETED")
	other.OutputRecords = 7
	twin := running("j", "MAPPING")
	twin.ID = "s-twin"
	for name, c := range map[string]struct {
		looks [][]Status
		want  string
	}{
		"lost":                       {[][]Status{{}}, "what was acknowledged survives"},
		"lost after a while":         {[][]Status{{running("j", "MAPPING")}, {}}, "what was acknowledged survives"},
		"there twice":                {[][]Status{{running("j", "MAPPING"), twin}}, "one job per request id"},
		"another id":                 {[][]Status{{twin}}, "one job per request id"},
		"runs again":                 {[][]Status{{ended("j", "COMPLETED")}, {running("j", "MAPPING")}}, "an end is an end"},
		"changes its end":            {[][]Status{{ended("j", "FAILED")}, {ended("j", "COMPLETED")}}, "an end is an end"},
		"changes its records":        {[][]Status{{ended("j", "COMPLETED")}, {other}}, "an end is an end"},
		"goes back from its commit":  {[][]Status{{running("j", "COMMITTING")}, {running("j", "REDUCING")}}, "from a commit only forward"},
		"is cancelled in its commit": {[][]Status{{running("j", "COMMITTING")}, {ended("j", "CANCELLED")}}, "from a commit only forward"},
		"from nowhere":               {[][]Status{{running("j", "MAPPING"), running("x", "MAPPING")}}, "no job from nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			intend(b, "j", "COMPLETED", "FAILED", "CANCELLED")
			for _, jobs := range c.looks {
				look(b, nil, jobs...)
			}
			require.Contains(t, rules(b), c.want, b.Found())
		})
	}
}

func TestWrongEnds(t *testing.T) {
	b := newBook()
	intend(b, "good", "COMPLETED")
	intend(b, "bad", "FAILED")
	b.Intend(Job{Name: "refused", Prefix: "b/"})
	b.Refused("refused")
	intend(b, "cancelled", "CANCELLED", "COMPLETED")
	b.Cancelled("cancelled")
	var jobs []Status
	for i, s := range []Status{ended("good", "FAILED"), ended("bad", "COMPLETED"), ended("refused", "COMPLETED"), ended("cancelled", "COMPLETED")} {
		s.SubmittedAt, s.EndedAt = second(2*i), second(2*i+1)
		jobs = append(jobs, s)
	}
	look(b, nil, jobs...)
	require.ElementsMatch(t, []string{"a job ends as it must", "a job ends as it must", "a refused submit starts nothing", "a job ends as it must", "an acknowledged cancel cancels"}, rules(b), b.Found())
}

// TestASubmitThatIsNotKnownToBeAcknowledged may be there or not, once.
func TestASubmitThatIsNotKnownToBeAcknowledged(t *testing.T) {
	b := newBook()
	b.Intend(Job{Name: "j", Prefix: "a/", Ends: []string{"COMPLETED"}})
	look(b, []Glimpse{seen("", "")})
	look(b, []Glimpse{seen("", "")}, running("j", "MAPPING"))
	require.Empty(t, b.Found())
	require.Equal(t, []string{"j"}, b.Unanswered())
	b.Acknowledged("j", "s-other")
	require.Empty(t, b.Unanswered())
	require.Equal(t, []string{"one job per request id"}, rules(b))
}

// TestAnOutputThatJobsOverwrite is the last completed job's until another commits.
func TestAnOutputThatJobsOverwrite(t *testing.T) {
	first := ended("one", "COMPLETED")
	overwriting := func(phase string) Status {
		s := running("two", phase)
		s.SubmittedAt = second(2)
		return s
	}
	whole := seen("p0", "one", "p0")
	setUp := func() *Book {
		b := newBook()
		intend(b, "one", "COMPLETED")
		look(b, []Glimpse{seen("", "")}, running("one", "MAPPING"))
		look(b, []Glimpse{whole}, first)
		intend(b, "two", "COMPLETED")
		look(b, []Glimpse{whole}, first, overwriting("REDUCING"))
		return b
	}
	t.Run("as it must", func(t *testing.T) {
		b := setUp()
		look(b, []Glimpse{seen("p0", "")}, first, overwriting("COMMITTING"))
		look(b, []Glimpse{seen("p0 p1", "")}, first, overwriting("COMMITTING"))
		done := ended("two", "COMPLETED")
		done.SubmittedAt, done.EndedAt = second(2), second(3)
		look(b, []Glimpse{seen("p1", "two", "p1")}, first, done)
		look(b, []Glimpse{seen("p1", "two", "p1")}, first, done)
		require.Empty(t, b.Found())
		look(b, []Glimpse{whole}, first, done)
		require.Equal(t, []string{"a result stays until another replaces it"}, rules(b), "the old one is back")
	})
	for name, g := range map[string]Glimpse{"_SUCCESS goes too early": seen("p0", ""), "a part comes too early": seen("p0 p1", "one", "p0"), "a part goes too early": seen("", "one", "p0")} {
		t.Run(name, func(t *testing.T) {
			b := setUp()
			look(b, []Glimpse{g}, first, overwriting("REDUCING"))
			require.Len(t, b.Found(), 1)
		})
	}
	t.Run("two jobs have it", func(t *testing.T) {
		b := newBook()
		intend(b, "one", "COMPLETED")
		intend(b, "two", "COMPLETED")
		look(b, nil, running("one", "MAPPING"), running("two", "MAPPING"))
		require.Equal(t, []string{"an output belongs to one job at a time"}, rules(b))
	})
}

func TestADiscrepancyIsSaidOnce(t *testing.T) {
	b := newBook()
	intend(b, "j", "COMPLETED")
	for range 3 {
		look(b, nil)
	}
	b.Note("j", "rule", "what %d", 1)
	b.Note("elsewhere", "rule", "what")
	var said []string
	for _, d := range b.Found() {
		said = append(said, d.String())
	}
	require.Equal(t, []string{"what was acknowledged survives: j s-j: the list of jobs does not have it", "rule: j s-j: what 1", "rule: elsewhere: what"}, said)
	require.Equal(t, []string{"j s-j"}, b.Open())
}
