package view

import "millrace/pkg/api"

// Group is one instance group.
type Group struct {
	ID            string `json:"id"`
	Role          string `json:"role"`
	Target        int64  `json:"target"`
	Running       int64  `json:"running"`
	Provider      string `json:"provider"`      // "" = the site's usual one
	Launching     int64  `json:"launching"`     // asked of the provider, not joined yet
	Bootstrapping int64  `json:"bootstrapping"` // up, and busy with bootstrap actions
	Draining      int64  `json:"draining"`      // to be let go
	Missing       int64  `json:"missing"`       // that the provider cannot give now
	Reason        string `json:"reason"`        // why it is not at its target
	Suspended     bool   `json:"suspended"`     // it grows no more until it is resized
	Min           *int64 `json:"min"`           // of a group that scales by itself; else null
	Max           *int64 `json:"max"`
}

// Slots counts slots.
type Slots struct {
	Total   int64 `json:"total"`
	Running int64 `json:"running"`
}

// BootstrapAction is a script that every node of a cluster runs before its first task.
type BootstrapAction struct {
	Name      string   `json:"name"`
	URL       string   `json:"url"`
	Args      []string `json:"args"`
	SHA256    string   `json:"sha256"`
	TimeoutMs int64    `json:"timeoutMs"` // 0 = 30 minutes
}

// Cluster is one cluster of the site.
type Cluster struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	State       string   `json:"state"`
	Reason      string   `json:"reason"`     // of one that ends or has ended
	ReasonCode  string   `json:"reasonCode"` // as EMR has them
	Problems    []string `json:"problems"`
	Masters     []Node   `json:"masters"`
	Groups      []Group  `json:"groups"`
	Slots       Slots    `json:"slots"`
	QueuedTasks int64    `json:"queuedTasks"`
	CreatedAt   Time     `json:"createdAt"`
	ReadyAt     Time     `json:"readyAt"` // when it could first run tasks
	EndedAt     Time     `json:"endedAt"`
	Protocol    int32    `json:"protocol"` // that the site uses

	BootstrapActions     []BootstrapAction `json:"bootstrapActions"`
	StepConcurrency      int32             `json:"stepConcurrency"` // jobs at once; 0 = no limit
	Tags                 map[string]string `json:"tags"`
	TerminationProtected bool              `json:"terminationProtected"`
	AutoTerminateMs      int64             `json:"autoTerminateMs"` // after so long without a job; 0 = never
	TerminateAfterSteps  bool              `json:"terminateAfterSteps"`
}

// OfCluster converts a cluster.
func OfCluster(c *api.Cluster) Cluster {
	v := Cluster{
		ID: c.GetId(), Name: c.GetName(), State: c.GetState(), Reason: c.GetReason(), ReasonCode: c.GetReasonCode(), Problems: list(c.GetProblems()),
		Masters: Nodes(c.GetMasters()), Groups: []Group{}, Slots: Slots{c.GetSlotsTotal(), c.GetSlotsRunning()}, QueuedTasks: c.GetQueuedTasks(),
		CreatedAt: At(c.GetCreatedAt()), ReadyAt: At(c.GetReadyAt()), EndedAt: At(c.GetEndedAt()), Protocol: c.GetProtocol(),
		BootstrapActions: []BootstrapAction{}, StepConcurrency: c.GetStepConcurrency(), Tags: map[string]string{}, TerminationProtected: c.GetTerminationProtected(),
		AutoTerminateMs: c.GetAutoTerminateMs(), TerminateAfterSteps: c.GetTerminateAfterSteps(),
	}
	for _, g := range c.GetGroups() {
		v.Groups = append(v.Groups, Group{ID: g.GetId(), Role: g.GetRole(), Target: g.GetTarget(), Running: g.GetRunning(), Provider: g.GetProvider(), Launching: g.GetLaunching(),
			Bootstrapping: g.GetBootstrapping(), Draining: g.GetDraining(), Missing: g.GetMissing(), Reason: g.GetReason(), Suspended: g.GetSuspended(), Min: g.Min, Max: g.Max})
	}
	for _, b := range c.GetBootstrapActions() {
		v.BootstrapActions = append(v.BootstrapActions, BootstrapAction{b.GetName(), b.GetUrl(), list(b.GetArgs()), b.GetSha256(), b.GetTimeoutMs()})
	}
	for _, t := range c.GetTags() {
		v.Tags[t.GetKey()] = t.GetValue()
	}
	return v
}

// Resize is what a resize takes, and the cluster as it was when it was asked for, or at the end of one that was followed.
type Resize struct {
	Cluster Cluster     `json:"cluster"`
	Groups  []GroupPlan `json:"groups"`
	DryRun  bool        `json:"dryRun"`
}

// GroupPlan is what it takes to bring a group to a target.
type GroupPlan struct {
	Role       string   `json:"role"`
	From       int64    `json:"from"`
	To         int64    `json:"to"`
	Add        int64    `json:"add"`
	Missing    int64    `json:"missing"` // of those to add: more than the provider has now
	Drain      []string `json:"drain"`   // nodes, the first to leave first
	Blocks     int64    `json:"blocks"`  // to be moved
	Bytes      int64    `json:"bytes"`
	Attempts   int64    `json:"attempts"` // that run on those that leave
	EstimateMs int64    `json:"estimateMs"`
}

// OfResize converts the answer to a resize.
func OfResize(r *api.ResizeClusterResponse, dry bool) Resize {
	v := Resize{Cluster: OfCluster(r.GetCluster()), Groups: []GroupPlan{}, DryRun: dry}
	for _, g := range r.GetGroups() {
		v.Groups = append(v.Groups, GroupPlan{g.GetRole(), g.GetFrom(), g.GetTo(), g.GetAdd(), g.GetMissing(), list(g.GetDrain()), g.GetBlocks(), g.GetBytes(), g.GetAttempts(), g.GetEstimateMs()})
	}
	return v
}

// Event is something that happened to a cluster.
type Event struct {
	Number  uint64 `json:"number"` // of the cluster, without a gap
	At      Time   `json:"at"`
	Kind    string `json:"kind"`
	Subject string `json:"subject"` // id of what it is about
	Message string `json:"message"`
}

// Events converts events; never nil.
func Events(events []*api.ClusterEvent) []Event {
	out := make([]Event, 0, len(events))
	for _, e := range events {
		out = append(out, Event{e.GetNumber(), At(e.GetAt()), e.GetKind(), e.GetSubject(), e.GetMessage()})
	}
	return out
}
