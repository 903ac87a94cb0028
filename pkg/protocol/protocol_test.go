package protocol

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhoCanWorkTogether(t *testing.T) {
	at := func(speaks, oldest int) Speaker { return Speaker{"x", speaks, oldest} }
	for _, c := range []struct {
		name string
		a, b Speaker
		fit  bool
	}{
		{"the same", at(2, 1), at(2, 1), true},
		{"the next version, which serves the one before", at(2, 1), at(3, 2), true},
		{"two versions apart, and the newer serves only one", at(1, 1), at(3, 2), false},
		{"one that says nothing", Silent("x"), at(3, 1), true},
		{"one that says nothing, and it is too long ago", Silent("x"), at(3, 2), false},
	} {
		require.Equal(t, c.fit, Meet(c.a, c.b) == nil, c.name)
		require.Equal(t, c.fit, Meet(c.b, c.a) == nil, "%s, the other way round", c.name)
	}
}

// Both versions and what to do are in the words, whichever side is asked.
func TestTheWordsOfARefusal(t *testing.T) {
	old, new := Speaker{"millrace-worker/v1", 2, 1}, Speaker{"millrace-master/v9", 5, 4}
	for _, err := range []error{Meet(old, new), Meet(new, old)} {
		var skew *Skew
		require.True(t, errors.As(err, &skew))
		require.Equal(t, "millrace-worker/v1 speaks protocol 2, and millrace-master/v9 serves protocols 4 to 5: they cannot work together", skew.Error())
		require.Equal(t, "upgrade millrace-worker/v1 to the version of millrace-master/v9 (masters first, then workers, then what people use)", skew.Next())
	}
}

func TestTheHeader(t *testing.T) {
	s := Speaker{"millrace/v1.2 (of today)", 4, 3}
	require.Equal(t, s, Parse(s.String(), "x"))
	for _, damaged := range []string{"", "4", "4 3", "four 3 x", "0 0 x", "-1 2 x"} {
		require.Equal(t, Silent("x"), Parse(damaged, "x"), damaged)
	}
}

// A master may be newer than its site, and newer than what it leads with; never older.
func TestWhichMasterMayJoin(t *testing.T) {
	m := Speaker{"m", 3, 2}
	require.NoError(t, m.Joins("site", 2))
	require.NoError(t, m.Joins("site", 3))
	require.ErrorContains(t, m.Joins("site", 4), "m speaks protocol 3, and site serves protocol 4 alone")
	require.ErrorContains(t, m.Joins("site", 1), "site speaks protocol 1, and m serves protocols 2 to 3")
	require.ErrorContains(t, m.Joins("site", 0), "site speaks protocol 1", "a site that says nothing")
}

func TestAVersionThatIsPretended(t *testing.T) {
	require.Equal(t, Speaker{"x", Version, Oldest}, Own("x"))
	t.Cleanup(func() { pretend = "" })
	pretend = "9 7"
	require.Equal(t, Speaker{"x", 9, 7}, Own("x"))
}
