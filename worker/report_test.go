package worker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/datanode"
)

// TestOneMessageSaysWhatHasBecomeOfAReplica, as it does not say in which order things came.
func TestOneMessageSaysWhatHasBecomeOfAReplica(t *testing.T) {
	one, other := hdfs.Block{ID: 1, Stamp: 7, Size: 10}, hdfs.Block{ID: 2, Stamp: 3, Size: 20}
	is := func(b hdfs.Block, s datanode.State) datanode.Change { return datanode.Change{Block: b, State: s} }
	for name, c := range map[string]struct {
		said                          []datanode.Change
		unfinished, stored, gone, bad int
	}{
		"whole, and deleted at once": {said: []datanode.Change{is(one, datanode.Final), is(one, datanode.Gone)}, gone: 1},
		"deleted, and copied again":  {said: []datanode.Change{is(one, datanode.Gone), is(one, datanode.Final)}, stored: 1},
		"damaged, and copied again":  {said: []datanode.Change{is(one, datanode.Bad), is(one, datanode.Gone), is(one, datanode.Unfinished), is(one, datanode.Final)}, stored: 1},
		"whole, and damaged":         {said: []datanode.Change{is(one, datanode.Final), is(one, datanode.Bad)}, stored: 1, bad: 1},
		"deleted, and begun again":   {said: []datanode.Change{is(one, datanode.Gone), is(one, datanode.Unfinished)}, gone: 1, unfinished: 1},
		"two blocks":                 {said: []datanode.Change{is(one, datanode.Final), is(other, datanode.Gone)}, stored: 1, gone: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := reportMessage(datanode.Report{Changes: c.said})
			require.Len(t, m.Unfinished, c.unfinished)
			require.Len(t, m.Stored, c.stored)
			require.Len(t, m.Gone, c.gone)
			require.Len(t, m.Bad, c.bad)
		})
	}
	m := reportMessage(datanode.Report{Full: true, Changes: []datanode.Change{is(one, datanode.Final), is(hdfs.Block{ID: 1, Stamp: 8}, datanode.Unfinished)}})
	require.Len(t, m.Stored, 1)
	require.Len(t, m.Unfinished, 1)
}
