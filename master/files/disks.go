package files

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"millrace/hdfs/blockmanager"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// eventDisk is the kind of what has become of a node's disk; the node is the subject.
const eventDisk = "DISK"

// Disks is what a core node says of its disks; nothing while it is not up, or has not said anything.
func (f *Files) Disks(node string) []*api.NodeDisk {
	f.mu.Lock()
	h := f.homes[node]
	f.mu.Unlock()
	if !h.up {
		return nil
	}
	var out []*api.NodeDisk
	for _, d := range f.manager(h.cluster).DisksOf(node) {
		v := &api.NodeDisk{Dir: d.Dir, CapacityBytes: d.Capacity, FreeBytes: d.Free, ReserveBytes: d.Reserve, Failed: d.Problem != "", Reason: d.Problem}
		if !v.Failed && 0 < d.Capacity && d.Capacity <= d.Reserve {
			v.Reason = fmt.Sprintf("it has %s, and --data-reserve keeps %s free: it never takes a block", bytesize.Format(d.Capacity), bytesize.Format(d.Reserve))
		}
		out = append(out, v)
	}
	return out
}

// noteDisks has the events of the clusters tell of disks that have failed, and that are in use again. What they tell already says
// what is new, so that no leader tells it twice.
func (f *Files) noteDisks(ctx context.Context) {
	v := f.cfg.View()
	for cluster, m := range f.all() {
		c, ok := v.Cluster(cluster)
		if !ok || c.Ended() {
			continue
		}
		var news []state.Event
		for _, n := range v.Nodes(cluster) {
			if f.up(n.ID, cluster) {
				for _, d := range m.DisksOf(n.ID) {
					if says := newOfDisk(c.Events, n.ID, d); says != "" {
						news = append(news, state.Event{At: f.cfg.Now().UTC(), Kind: eventDisk, Subject: n.ID, Message: says})
					}
				}
			}
		}
		if len(news) == 0 {
			continue
		}
		if _, err := f.cfg.Apply(ctx, state.AddEvents{Cluster: cluster, Events: news}); err != nil && !errors.Is(err, ErrTooSoon) {
			f.log.Warn("what became of disks is not noted yet", zap.String("cluster", cluster), zap.Error(err))
		}
	}
}

// up says whether a node is up in a cluster.
func (f *Files) up(node, cluster string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.homes[node] == home{cluster, true}
}

// newOfDisk is what the events do not tell of a disk yet; "" if there is nothing.
func newOfDisk(events []state.Event, node string, d blockmanager.Disk) string {
	failed, back := fmt.Sprintf("disk %s has failed: ", d.Dir), fmt.Sprintf("disk %s is in use again", d.Dir)
	told := false // that it has failed
	for _, e := range slices.Backward(events) {
		if e.Kind == eventDisk && e.Subject == node && (e.Message == back || strings.HasPrefix(e.Message, failed)) {
			told = e.Message != back
			break
		}
	}
	switch {
	case d.Problem != "" && !told:
		return failed + d.Problem
	case d.Problem == "" && told:
		return back
	}
	return ""
}
