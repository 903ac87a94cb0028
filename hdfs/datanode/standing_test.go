package datanode

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs/wire"
)

func TestWhatAMemberSaysOfItselfAndThoseBelow(t *testing.T) {
	fault := &wire.Fault{Member: 2, Code: wire.NoSpace, Text: "full"}
	for name, c := range map[string]struct {
		standing
		want wire.Ack
	}{
		"its replica is not open yet":           {standing{last: true}, wire.Ack{State: wire.Waiting, Holder: 0}},
		"the next one has not answered":         {standing{opened: true}, wire.Ack{State: wire.Waiting, Holder: 1}},
		"the next one waits for the third":      {standing{opened: true, below: wire.Ack{Holder: 1}}, wire.Ack{State: wire.Waiting, Holder: 2}},
		"nothing to do":                         {standing{last: true, opened: true, received: 5, written: 5}, wire.Ack{State: wire.Ready, Length: 5, Holder: -1}},
		"its disk has something to do":          {standing{last: true, opened: true, received: 9, written: 5}, wire.Ack{State: wire.Ready, Length: 5, Holder: 0}},
		"the next one's has":                    {standing{opened: true, received: 9, written: 9, below: wire.Ack{State: wire.Ready, Length: 5, Holder: 0}}, wire.Ack{State: wire.Ready, Length: 5, Holder: 1}},
		"the third one's has":                   {standing{opened: true, received: 9, written: 9, below: wire.Ack{State: wire.Ready, Length: 5, Holder: 1}}, wire.Ack{State: wire.Ready, Length: 5, Holder: 2}},
		"packets are on the way to the next":    {standing{opened: true, received: 9, written: 9, below: wire.Ack{State: wire.Ready, Length: 5, Holder: -1}}, wire.Ack{State: wire.Ready, Length: 5, Holder: 1}},
		"it is behind the next one":             {standing{opened: true, received: 9, written: 3, below: wire.Ack{State: wire.Ready, Length: 5, Holder: -1}}, wire.Ack{State: wire.Ready, Length: 3, Holder: 0}},
		"all is written, it makes it final":     {standing{last: true, opened: true, received: 9, written: 9, whole: true}, wire.Ack{State: wire.Ready, Length: 9, Holder: 0}},
		"it is final, the next one is not":      {standing{opened: true, received: 9, written: 9, whole: true, final: true, below: wire.Ack{State: wire.Ready, Length: 9, Holder: 0}}, wire.Ack{State: wire.Ready, Length: 9, Holder: 1}},
		"the next one is final, it is not":      {standing{opened: true, received: 9, written: 9, whole: true, below: wire.Ack{State: wire.Final, Length: 9, Holder: -1}}, wire.Ack{State: wire.Ready, Length: 9, Holder: 0}},
		"the last one is final":                 {standing{last: true, opened: true, received: 9, written: 9, whole: true, final: true}, wire.Ack{State: wire.Final, Length: 9, Holder: -1}},
		"all are final":                         {standing{opened: true, received: 9, written: 9, whole: true, final: true, below: wire.Ack{State: wire.Final, Length: 9, Holder: -1}}, wire.Ack{State: wire.Final, Length: 9, Holder: -1}},
		"somebody failed, whatever stands else": {standing{opened: true, received: 9, written: 9, whole: true, final: true, below: wire.Ack{State: wire.Failed}, fault: fault}, wire.Ack{State: wire.Failed, Length: 9, Holder: -1, Fault: fault}},
	} {
		require.Equal(t, c.want, c.ack(), name)
	}
}
