package view

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/pkg/api"
)

func TestTimesAreUTCOrNull(t *testing.T) {
	for _, test := range []struct {
		t    *timestamppb.Timestamp
		want string
	}{
		{nil, "null"},
		{&timestamppb.Timestamp{}, "null"},
		{timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6_789_000, time.FixedZone("", 3600))), `"2026-01-02T02:04:05.006Z"`},
	} {
		got, err := json.Marshal(At(test.t))
		require.NoError(t, err)
		require.Equal(t, test.want, string(got))
	}
}

// An empty message gives a document whose lists and groups are there, and empty.
func TestNothingIsMissingOrNull(t *testing.T) {
	for _, v := range []any{OfJob(&api.Job{}), OfTask(&api.Task{}), OfNode(&api.Node{}), OfCluster(&api.Cluster{}), OfToken(&api.JoinToken{}), Nodes(nil)} {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		var fields map[string]any
		if json.Unmarshal(data, &fields) != nil {
			require.Equal(t, "[]", string(data))
			continue
		}
		for name, value := range fields {
			if value == nil {
				require.True(t, strings.HasSuffix(name, "At") || name == "failure", "%T: %s is null", v, name)
			}
		}
	}
}

func TestFieldsAreLowerCamelCase(t *testing.T) {
	for _, v := range []any{Job{}, Failure{}, Task{}, Attempt{}, Node{}, Cluster{}, Group{}, Resize{}, GroupPlan{}, Event{}, Token{}, Entry{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.Regexp(t, "^[a-z][A-Za-z]*$", name, "%T.%s", v, f.Name)
		}
	}
}

func TestCountersOfTheSameNameAreAdded(t *testing.T) {
	require.Equal(t, map[string]map[string]int64{"a": {"x": 3}, "b": {"x": 4}}, Counters([]*api.Counter{
		{Group: "a", Name: "x", Value: 1}, {Group: "b", Name: "x", Value: 4}, {Group: "a", Name: "x", Value: 2}}))
}

func TestCluster(t *testing.T) {
	v := OfCluster(&api.Cluster{Id: "j-1", Groups: []*api.InstanceGroup{{Id: "ig-1", Role: "CORE", Target: 2, Running: 1}}, SlotsTotal: 4, SlotsRunning: 3, QueuedTasks: 9,
		Masters: []*api.Node{{Id: "i-1", Role: "MASTER", Leader: true}}, Problems: []string{"p"}})
	require.Equal(t, []Group{{ID: "ig-1", Role: "CORE", Target: 2, Running: 1}}, v.Groups)
	require.Equal(t, Slots{4, 3}, v.Slots)
	require.True(t, v.Masters[0].Leader)
}

func TestAJobThatHasStartedHasAllCountersOfTheEngine(t *testing.T) {
	require.Empty(t, OfJob(&api.Job{}).Counters)
	v := OfJob(&api.Job{StartedAt: timestamppb.Now(), Counters: []*api.Counter{{Group: "millrace", Name: "mapInputRecords", Value: 7}, {Group: "Mine", Name: "odd", Value: 1}}})
	require.Len(t, v.Counters["millrace"], len(engineCounters))
	require.EqualValues(t, 7, v.Counters["millrace"]["mapInputRecords"])
	require.Contains(t, v.Counters["millrace"], "spilledRecords")
	require.Equal(t, map[string]int64{"odd": 1}, v.Counters["Mine"])
}
