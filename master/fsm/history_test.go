package fsm

import (
	"time"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
	"millrace/master/state"
)

func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

// history is the life of a little site, with every command in it and something in every field that can be
// written: what the golden files are made of. Whoever adds a command or a field adds it here, at the end of a part, and
// makes a new golden file.
func history() []state.Command {
	var all []state.Command
	for _, part := range [][]state.Command{siteHistory(), completedHistory(), failedHistory(), openHistory(), pastHistory(), filesHistory(), drainHistory(), fleetHistory(), peopleHistory(), conditionHistory()} {
		all = append(all, part...)
	}
	return all
}

func siteHistory() []state.Command {
	return []state.Command{
		state.CreateSite{
			Site: state.Site{
				ID: "site-1", CreatedAt: t0, CAPEM: "-----BEGIN CERTIFICATE-----\n", SealedCAKey: []byte{1, 0xff},
				SealedStore: []byte{2}, SealedGossip: []byte{3}, SystemPrefix: "s3://first/",
			},
			Cluster: state.Cluster{ID: "j-1", Name: "default", CreatedAt: t0, Groups: []state.Group{
				{ID: "ig-core", Role: state.RoleCore, Target: 1}, {ID: "ig-task", Role: state.RoleTask, Target: 1},
			}},
		},
		state.PutStore{SealedStore: []byte{4, 5}, SystemPrefix: "s3://sys/<&>/"},
		state.PutNode{Node: state.Node{
			ID: "i-m1", Name: "master-1", Role: state.RoleMaster, State: state.NodeAdmitted, Version: "1.0", Address: "https://m1:7070", JoinedAt: t0,
			Raft: "m1:7071",
		}},
		state.CreateToken{Token: state.Token{ID: "t-core", SecretHash: []byte{6, 7}, Role: state.RoleCore, Cluster: "j-1", ExpiresAt: at(3600), UsesLeft: 3}},
		state.CreateToken{Token: state.Token{ID: "t-task", SecretHash: []byte{8}, Role: state.RoleTask, Cluster: "j-1", ExpiresAt: at(3600), UsesLeft: -1}},
		state.CreateToken{Token: state.Token{ID: "t-gone", SecretHash: []byte{9}, Role: state.RoleMaster, ExpiresAt: at(3600), UsesLeft: 1}},
		state.RevokeToken{ID: "t-gone"},
		state.AdmitNode{Token: "t-gone", Now: at(1), Node: state.Node{ID: "i-late", Role: state.RoleMaster}}, // refused
		state.AdmitNode{Token: "t-core", Now: at(1), Node: state.Node{
			ID: "i-c1", Name: "core-1", Cluster: "j-1", Group: "ig-core", Role: state.RoleCore, Version: "1.0", Address: "https://c1", Serial: "a1", JoinedAt: at(1)}},
		state.AdmitNode{Token: "t-core", Now: at(2), Node: state.Node{ID: "i-c2", Name: "core-2", Cluster: "j-1", Role: state.RoleCore, JoinedAt: at(2)}}, // raises the target
		state.AdmitNode{Token: "t-task", Now: at(3), Node: state.Node{ID: "i-t1", Name: "task-1", Cluster: "j-1", Role: state.RoleTask, JoinedAt: at(3)}},
		state.AdmitNode{Token: "t-core", Now: at(9999), Node: state.Node{ID: "i-c3", Cluster: "j-1", Role: state.RoleCore}}, // refused
		state.RemoveNode{ID: "i-c2"},
		state.PutNode{Node: state.Node{ID: "i-m2", Name: "master-2", Role: state.RoleMaster, JoinedAt: at(4)}},
		state.PutNode{Node: state.Node{
			ID: "i-m2", Name: "master-2", Role: state.RoleMaster, JoinedAt: at(5),
			Spare: true,
		}},
	}
}

// completedHistory is a job of two maps and two reduces whose first map is lost, gives other bytes when it is run again and so
// has the reduces start over; a part is made again during the commit.
func completedHistory() []state.Command {
	const job = "s-DONE"
	written := state.Ledger{Records: 20, Bytes: 200, Checksum: 1<<64 - 7}
	half := state.Ledger{Records: 5, Bytes: 50, Checksum: 3}
	return []state.Command{
		state.SubmitJob{Job: state.Job{
			ID: job, Cluster: "j-1", Name: "words", Program: "wordcount", User: "ann", RequestID: "r-1", Spec: []byte{10, 11},
			SealedStore: []byte{12}, Input: []string{"s3://in/a/", "s3://in/b*"}, Output: "s3://out/words/", Overwrite: true, Priority: 7, SubmittedAt: at(10),
		}},
		state.SubmitJob{Job: state.Job{ID: "s-TWICE", Cluster: "j-1", User: "ann", RequestID: "r-1"}},                     // the same job
		state.SubmitJob{Job: state.Job{ID: "s-INSIDE", Cluster: "j-1", User: "bob", Output: "s3://out/words/of/a/kind/"}}, // refused
		state.AddUploads{Uploads: []state.Upload{
			{Job: job, Task: reduce(0), ID: "u-0", Key: "words/part-r-00000", Attempt: job + "-r-0-1"},
			{Job: job, Task: reduce(1), ID: "u-1", Key: "words/part-r-00001"},
			{Job: job, Task: reduce(1), ID: "u-2", Key: "words/part-r-00001"},
		}},
		state.PlanJob{
			Job: job, PlanKey: "plans/done", PlanDigest: "sha256:1", BytesTotal: 1 << 40, Maps: 2, Reduces: 2, At: at(11),
			Notes: []string{"a note of the plan"},
		},
		state.EndTasks{Items: []state.EndTask{
			ended(job, mapTask(0), "m0-0", state.CountsFailed), ended(job, mapTask(0), "m0-1", state.CountsKilled), ended(job, mapTask(1), "m1-0", state.CountsLost),
		}},
		state.EndTasks{Items: []state.EndTask{mapWin(job, 0, "m0-2", 1, written.Sub(half)), mapWin(job, 1, "m1-1", 2, half)}},
		state.EndTasks{Items: []state.EndTask{reduceWin(job, 0, "r0-0", "u-0", term(1)+term(2), half)}},
		state.LoseMaps{Job: job, Maps: []state.LostMap{{Index: 0, Attempt: "m0-2"}, {Index: 1, Attempt: "another"}}},
		state.EndTasks{Items: []state.EndTask{mapWin(job, 0, "m0-3", 3, written.Sub(half))}},
		state.EndTasks{Items: []state.EndTask{
			reduceWin(job, 0, "r0-1", "u-0", term(1)+term(2), half), // refused: what it consumed is not what is there
			reduceWin(job, 0, "r0-2", "u-0", term(3)+term(2), half),
			reduceWin(job, 1, "r1-0", "u-1", term(3)+term(2), written.Sub(half)),
		}},
		state.CancelJob{Job: "s-NONE"}, // refused
		state.BeginCommit{Job: job, At: at(20)},
		state.CancelJob{Job: job, Reason: "too late"}, // refused
		state.RedoParts{Job: job, Tasks: []int{1}},
		state.DropUploads{Job: job, IDs: []string{"u-1"}},
		state.EndTasks{Items: []state.EndTask{reduceWin(job, 1, "r1-1", "u-2", term(3)+term(2), written.Sub(half))}},
		state.CompleteJob{
			Job: job, At: at(30), OutputRecords: 4, OutputBytes: 40, Parts: 2, CommitMs: 1234,
			Retries: state.StoreRetries{Requests: 3, Last: "SlowDown"},
			Notes:   []string{"a note of the commit"},
		},
	}
}

// failedHistory is a job that fails in its commit, and one that is cancelled before it is planned.
func failedHistory() []state.Command {
	return []state.Command{
		state.SubmitJob{Job: state.Job{ID: "s-FAILS", Cluster: "j-1", Name: "fails", User: "ann", Output: "s3://out/fails/", SubmittedAt: at(40)}},
		state.PlanJob{Job: "s-FAILS", Maps: 1, At: at(41)},
		state.EndTasks{Items: []state.EndTask{mapWin("s-FAILS", 0, "m0-0", 1, state.Ledger{})}},
		state.BeginCommit{Job: "s-FAILS", At: at(42)},
		state.FailJob{Job: "s-FAILS", Reason: "refused for good"}, // refused
		state.FailJob{Job: "s-FAILS", Reason: "refused for good", Force: true, Failure: failure()},
		state.EndJob{
			Job: "s-FAILS", At: at(43),
			Left:    "two parts stay",
			Retries: state.StoreRetries{Requests: 1, Last: "503"},
		},
		state.SubmitJob{Job: state.Job{ID: "s-CANCELLED", Cluster: "j-1", Output: "s3://out/fails/", SubmittedAt: at(50)}},
		state.CancelJob{Job: "s-CANCELLED", Reason: "not wanted any more"},
		state.EndJob{Job: "s-CANCELLED", At: at(51)},
	}
}

// openHistory leaves jobs in every state that is no end.
func openHistory() []state.Command {
	return []state.Command{
		state.SubmitJob{Job: state.Job{ID: "s-PENDING", Cluster: "j-1", Output: "s3://out/pending/", SubmittedAt: at(60)}},
		state.SubmitJob{Job: state.Job{ID: "s-RUNS", Cluster: "j-1", Output: "s3://out/runs/", SubmittedAt: at(61)}},
		state.AddUploads{Uploads: []state.Upload{{Job: "s-RUNS", Task: reduce(0), ID: "u-9", Key: "runs/part-r-00000", Attempt: "s-RUNS-r-0-9"}}},
		state.PlanJob{Job: "s-RUNS", PlanKey: "plans/runs", PlanDigest: "sha256:2", Maps: 2, Reduces: 1, BytesTotal: 9, At: at(62)},
		state.EndTasks{Items: []state.EndTask{mapWin("s-RUNS", 0, "m0-0", 5, state.Ledger{Records: 1, Bytes: 1, Checksum: 1}), ended("s-RUNS", mapTask(1), "m1-0", state.CountsFailed)}},
		state.LoseMaps{Job: "s-RUNS", Maps: []state.LostMap{{Index: 0, Attempt: "m0-0"}}},
		state.SubmitJob{Job: state.Job{ID: "s-FAILING", Cluster: "j-1", Output: "s3://out/failing/", SubmittedAt: at(63)}},
		state.FailJob{Job: "s-FAILING", Reason: "its input is gone", Failure: failure()},
		state.SubmitJob{Job: state.Job{ID: "s-CANCELLING", Cluster: "j-1", Output: "s3://out/cancelling/", SubmittedAt: at(64)}},
		state.CancelJob{Job: "s-CANCELLING", Reason: "enough"},
	}
}

// pastHistory has the site use protocol 2, by which jobs move to the history.
func pastHistory() []state.Command {
	all := []state.Command{
		state.RaiseSite{Protocol: 2},
		state.PutNode{Node: state.Node{ID: "i-m1", Name: "master-1", Role: state.RoleMaster, State: state.NodeAdmitted, JoinedAt: t0, Raft: "m1:7071", Protocol: 2}},
	}
	for i, id := range []string{"s-PAST", "s-OLD"} {
		all = append(all,
			state.SubmitJob{Job: state.Job{ID: id, Cluster: "j-1", Name: "past", User: "ann", RequestID: "r-" + id, Output: "s3://out/past/", SubmittedAt: at(70 + i)}},
			state.CancelJob{Job: id}, state.EndJob{Job: id, At: at(75 + i)})
	}
	return append(all,
		state.RetireJobs{Page: "0123456789", Jobs: []string{"s-PAST", "s-OLD", "s-PENDING"}}, // which goes on
		state.ForgetJobs{Jobs: []string{"s-OLD", "s-NONE"}})
}

// filesHistory has the site use protocol 3, by which clusters have files.
func filesHistory() []state.Command {
	const c, chunk = "j-1", hdfs.ChunkSize
	file := func(path, lease string) namespace.CreateFile {
		return namespace.CreateFile{Cluster: c, Path: path, Lease: lease, BlockSize: chunk}
	}
	upload := func(group, task, path string) namespace.CreateFile {
		return namespace.CreateFile{Cluster: c, Path: path, Lease: "lease of " + task, Group: group, Task: task}
	}
	return []state.Command{
		state.RaiseSite{Protocol: 3},
		namespace.Mkdir{Cluster: c, Path: "/in", At: at(80)},   // file 2
		namespace.Mkdir{Cluster: "j-2", Path: "/", At: at(80)}, // refused: there is no such cluster
		namespace.CreateFile{Cluster: c, Path: "/in/a <&> 語", Lease: "w-1", Replication: 2, BlockSize: chunk, Overwrite: true}, // 3
		namespace.AddBlock{Cluster: c, File: 3, Lease: "w-1"},                                                                  // block 1, stamp 1
		namespace.Restamp{Cluster: c, File: 3, Lease: "w-1", Block: hdfs.Block{ID: 1, Stamp: 1, Size: 7}},                      // stamp 2
		namespace.AddBlock{Cluster: c, File: 3, Lease: "w-1", Prev: &hdfs.Block{ID: 1, Stamp: 2, Size: chunk}},                 // block 2, stamp 3
		file("/in/a <&> 語", "w-2"), // refused: it has a writer
		namespace.CompleteFile{Cluster: c, File: 3, Lease: "w-1", Last: &hdfs.Block{ID: 2, Stamp: 3, Size: 10}, At: at(81)},
		namespace.CompleteFile{Cluster: c, File: 3, Lease: "w-1", Last: &hdfs.Block{ID: 2, Stamp: 3, Size: 10}, At: at(82)}, // again
		file("/in/b", "w-2"), // 4
		namespace.AbandonFile{Cluster: c, File: 4, Lease: "w-2"},
		file("/in/c", "w-3"), // 5
		namespace.AddBlock{Cluster: c, File: 5, Lease: "w-3"}, // block 3, stamp 4
		namespace.ExpireLeases{Cluster: c, Leases: []string{"w-3", "w-4"}},
		namespace.Rename{Cluster: c, From: "/in/a <&> 語", To: "/old/deep/a", At: at(83), Request: "q-1"}, // 6 and 7 are its folders
		namespace.SetReplication{Cluster: c, Path: "/old/deep/a", Replication: 5},
		namespace.Mkdir{Cluster: c, Path: "/out/gone", At: at(84)},                     // 8, 9
		namespace.Remove{Cluster: c, Path: "/out"},                                     // refused: it is not empty
		namespace.Remove{Cluster: c, Path: "/old", Request: "q-2"},                     // refused, too
		namespace.Mkdir{Cluster: c, Path: "/not/wanted", At: at(84)},                   // 10, 11
		namespace.Remove{Cluster: c, Path: "/not", Recursive: true, Request: "q-3"},    //
		upload("s-RUNS", "r-0", "/out/part-0"), upload("s-RUNS", "r-1", "/out/part-1"), // 12, 13
		upload("s-RUNS", "r-1 again", "/out/part-1"),                    // 14
		namespace.AddBlock{Cluster: c, File: 12, Lease: "lease of r-0"}, // block 4, stamp 5
		namespace.CompleteFile{Cluster: c, File: 12, Lease: "lease of r-0", Last: &hdfs.Block{ID: 4, Stamp: 5, Size: 1000}, At: at(85)},
		namespace.CompleteFile{Cluster: c, File: 13, Lease: "lease of r-1", At: at(85)}, // an empty one
		namespace.AbortUploads{Cluster: c, Group: "s-RUNS", Files: []hdfs.FileID{14, 99}},
		namespace.Publish{Cluster: c, Group: "s-RUNS", Prefix: "/out", Count: 3, At: at(86)}, // refused: there are two
		namespace.Publish{Cluster: c, Group: "s-RUNS", Prefix: "/out", Count: 2, Replace: true, At: at(86)},
		file("/in/open", "w-5"),                                // 15
		namespace.AddBlock{Cluster: c, File: 15, Lease: "w-5"}, // block 5, stamp 6
		namespace.Restamp{Cluster: c, File: 15, Lease: "w-5", Block: hdfs.Block{ID: 5, Stamp: 6}},
		upload("s-OTHER", "r-0", "/other/part-0"), upload("s-OTHER", "r-1", "/other/part-1"), // 16, 17
		namespace.CompleteFile{Cluster: c, File: 16, Lease: "lease of r-0", At: at(87)},
	}
}

// drainHistory is of one node that drains and of one that did and is gone.
func drainHistory() []state.Command {
	return []state.Command{
		state.AdmitNode{Token: "t-core", Now: at(90), Node: state.Node{ID: "i-c4", Cluster: "j-1", Role: state.RoleCore, JoinedAt: at(90)}},
		state.DrainNode{ID: "i-c4", By: at(390)},
		state.DrainNode{ID: "i-c4"}, // it resumes
		state.DrainNode{ID: "i-c4", By: at(400)},
		state.RemoveNode{ID: "i-c4", Shrink: true},
		state.RemoveNode{ID: "i-c4", Shrink: true},
		state.DrainNode{ID: "i-c4", By: at(410)}, // refused: it is gone
		state.DrainNode{ID: "i-m1", By: at(410)}, // refused: it is a master
		state.DrainNode{ID: "i-t1", By: at(410)},
	}
}

// fleetHistory has the site use protocol 4, by which clusters, and the nodes of them, come and go.
func fleetHistory() []state.Command {
	event := func(second int, kind, message string) state.Event {
		return state.Event{At: at(second), Kind: kind, Subject: "ig-2", Message: message}
	}
	launch := func(id, how string) state.Launch {
		return state.Launch{ID: id, Cluster: "j-2", Group: "ig-2", Provider: "command", State: how, RequestedAt: at(500), Token: "t-" + id, SealedToken: []byte{20}}
	}
	ask := func(id string) state.PutLaunch {
		return state.PutLaunch{Launch: launch(id, state.LaunchRequested), Create: &state.Token{
			ID: "t-" + id, SecretHash: []byte{21}, Role: state.RoleTask, Cluster: "j-2", ExpiresAt: at(3600), UsesLeft: 1, Launch: id}}
	}
	given, refused := launch("l-1", state.LaunchGiven), launch("l-3", state.LaunchRequested)
	given.Machine, refused.Tries, refused.Problem = "vm-1", 2, "no room"
	pooled := func(id string) state.AdmitNode {
		return state.AdmitNode{Token: "t-pool", Now: at(501), Node: state.Node{ID: id, Role: state.RolePool, JoinedAt: at(501)}}
	}
	made := state.Cluster{
		ID: "j-2", Name: "night", CreatedAt: at(500), RequestID: "r-2", User: "ann", StepConcurrency: 2, TerminationProtected: true, AutoTerminateMs: 600_000,
		TerminateAfterSteps: true, Tags: []state.Tag{{Key: "team", Value: "<&> 語"}},
		Bootstrap: []state.BootstrapAction{{Name: "setup.sh", URL: "s3://in/setup.sh", Args: []string{"a", "b"}, SHA256: "0123", TimeoutMs: 60_000}},
		Groups: []state.Group{
			{ID: "ig-1", Role: state.RoleCore, Target: 1, Provider: "pool"}, {ID: "ig-2", Role: state.RoleTask, Provider: "command", Scales: true, Target: 1, Min: 1, Max: 9},
		},
		Events: []state.Event{event(500, "CLUSTER", "made")},
	}
	return []state.Command{
		state.RaiseSite{Protocol: 4},
		state.CreateCluster{Cluster: made},
		state.CreateCluster{Cluster: made},                                    // the same one
		state.CreateCluster{Cluster: state.Cluster{ID: "j-3", Name: "night"}}, // refused: the name is taken
		state.CreateCluster{Cluster: state.Cluster{ID: "j-3", Name: "short", CreatedAt: at(501)}},
		state.CreateToken{Token: state.Token{ID: "t-pool", SecretHash: []byte{22}, Role: state.RolePool, ExpiresAt: at(3600), UsesLeft: -1}},
		state.CreateToken{Token: state.Token{ID: "t-short", SecretHash: []byte{23}, Role: state.RoleCore, Cluster: "j-3", ExpiresAt: at(3600), UsesLeft: -1}},
		pooled("i-p1"), pooled("i-p2"), pooled("i-p3"), pooled("i-p4"),
		state.AssignNode{ID: "i-p1", Cluster: "j-2", Group: "ig-1"},
		state.AssignNode{ID: "i-p1", Cluster: "j-2", Group: "ig-2"}, // refused: it is free no more
		state.AssignNode{ID: "i-p2", Cluster: "j-2", Group: "ig-2"},
		state.AssignNode{ID: "i-p3", Cluster: "j-2", Group: "ig-2"},
		pooled("i-p1"), // it asks again, and stays where it is
		state.NoteBootstrap{ID: "i-p1", Cluster: "j-2", State: state.BootstrapDone},
		state.NoteBootstrap{ID: "i-p2", Cluster: "j-2", State: state.BootstrapFailed, Failure: "setup.sh: exit code 1"},
		state.NoteBootstrap{ID: "i-p3", Cluster: "j-1", State: state.BootstrapDone}, // refused: it is of another
		state.SetCluster{Cluster: "j-2", Ready: at(502)},
		ask("l-1"), ask("l-2"), ask("l-3"),
		state.PutLaunch{Launch: given},
		state.AdmitNode{Token: "t-l-1", Now: at(503), Node: state.Node{ID: "i-l1", Cluster: "j-2", Role: state.RoleTask, JoinedAt: at(503)}},
		state.AdmitNode{Token: "t-l-2", Now: at(503), Node: state.Node{ID: "i-l2", Cluster: "j-2", Role: state.RoleTask, JoinedAt: at(503)}},
		state.PutLaunch{Launch: given}, // it has joined already
		state.PutLaunch{Launch: refused},
		state.SetTarget{Cluster: "j-2", Group: "ig-2", From: 1, To: 99, Event: new(event(504, "SCALING", "tasks wait"))},
		state.SetTarget{Cluster: "j-2", Group: "ig-2", From: 1, To: 2}, // overtaken
		state.ResizeCluster{Cluster: "j-2", Groups: []state.Group{{ID: "ig-1", Target: 3, GraceMs: 60_000}}},
		state.SuspendGroup{Cluster: "j-2", Group: "ig-2", Reason: "half of its nodes failed"},
		state.AddEvents{Cluster: "j-2", Events: []state.Event{event(505, "BOOTSTRAP", "failed"), event(506, "GROUP", "suspended")}},
		state.PutNode{Node: state.Node{ID: "i-u1", Role: state.RolePool, Pooled: true, Unsure: true}},
		state.PutNode{Node: state.Node{ID: "i-u2", Role: state.RolePool, Pooled: true, Unsure: true}},
		state.FindNode{ID: "i-u1", Cluster: "j-2", Role: state.RoleTask},
		state.FindNode{ID: "i-u1", Cluster: "j-2", Role: state.RoleCore}, // it has said so before
		state.LeaveNode{ID: "i-p3", By: at(600)},
		state.ReleaseNode{ID: "i-p3"},
		state.ReleaseNode{ID: "i-l1"}, // refused: it is not of the pool
		state.LeaveNode{ID: "i-l1", By: at(600)},
		state.LeaveNode{ID: "i-l2", By: at(600)},
		state.DrainNode{ID: "i-l2"}, // it stays
		state.LeaveNode{ID: "i-l2", By: at(700)},
		state.DrainNode{ID: "i-u1", By: at(700), Bye: "0123456789abcdef"},
		state.LeaveNode{ID: "i-u1", By: at(700), Bye: "0123456789abcdef"},
		state.RemoveNode{ID: "i-l1"},
		state.DropLaunch{ID: "l-1"},
		state.PutLaunch{Launch: given}, // refused: it was dropped
		state.SetCluster{
			Cluster: "j-2", TerminationProtected: new(false), StepConcurrency: new(3), AutoTerminateMs: new(int64(7)), TerminateAfterSteps: new(false),
			PutTags: []state.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}, RemoveTags: []string{"b"},
		},
		state.SetCluster{Cluster: "j-2", TerminationProtected: new(true)},
		state.TerminateCluster{Cluster: "j-2", ReasonCode: state.ReasonUserRequest}, // refused: it is protected
		namespace.Mkdir{Cluster: "j-3", Path: "/gone", At: at(507)},
		state.TerminateCluster{Cluster: "j-3", ReasonCode: state.ReasonUserRequest, Reason: "not wanted any more"},
		state.SubmitJob{Job: state.Job{ID: "s-LATE", Cluster: "j-3"}}, // refused
		state.EndCluster{Cluster: "j-3", State: state.ClusterTerminated, At: at(508)},
		namespace.Mkdir{Cluster: "j-3", Path: "/late", At: at(509)}, // refused
		state.CreateCluster{Cluster: state.Cluster{ID: "j-4", Name: "short", CreatedAt: at(510)}},
		state.SetCluster{Cluster: "j-4", Bootstrap: []state.BootstrapAction{{Name: "better.sh", URL: "s3://in/better.sh", Args: []string{"c"}, SHA256: "4567", TimeoutMs: 70_000}}},
		state.TerminateCluster{Cluster: "j-4", ReasonCode: state.ReasonAllStepsCompleted},
		state.PutNode{Node: state.Node{ID: "i-p1", Name: "renamed", Role: state.RoleCore, Cluster: "j-2", Group: "ig-1"}},
	}
}

// peopleHistory is of users, and of the site's own settings.
func peopleHistory() []state.Command {
	return []state.Command{
		state.CreateUser{User: state.User{Name: "ann", Role: state.UserAdmin, CreatedAt: at(520), CodeID: "c-1", CodeHash: []byte{30}, CodeExpiresAt: at(600)}},
		state.CreateUser{User: state.User{Name: "ann", Role: state.UserRead}}, // refused
		state.LoginUser{CodeID: "c-1", Now: at(521)},
		state.LoginUser{CodeID: "c-1", Now: at(522)}, // refused: it was used
		state.CreateUser{User: state.User{Name: "bob", Role: state.UserSubmit, CreatedAt: at(523)}},
		state.RemoveUser{Name: "bob"},
		state.CreateUser{User: state.User{Name: "eve", Role: state.UserRead, CreatedAt: at(524)}},
		state.PutLoginCode{Name: "eve", CodeID: "c-2", CodeHash: []byte{31}, ExpiresAt: at(600)},
		state.SetSite{NoExec: new(true)},
		state.PutCA{Phase: state.CASpreading, Since: at(525), CAPEM: "old and new", SealedCAKey: []byte{32}, NextCAPEM: "new", SealedNextKey: []byte{33}},
		state.PutCA{From: state.CASpreading, Phase: state.CAIssuing, Since: at(525), CAPEM: "new and old", SealedCAKey: []byte{35}, NextCAPEM: "new", SealedNextKey: []byte{36}},
		state.PutCA{Phase: state.CAIssuing, Since: at(526), CAPEM: "late", SealedCAKey: []byte{34}}, // refused: the phase is another
	}
}

// conditionHistory is of what came to files with protocol 4.
func conditionHistory() []state.Command {
	return []state.Command{
		namespace.Mkdir{Cluster: "j-1", Path: "/kept", At: at(530)}, // 18
		namespace.Remove{Cluster: "j-1", Path: "/kept", File: 17},   // refused: it is another one
		namespace.Mkdir{Cluster: "j-1", Path: "/dropped", At: at(531)},
		namespace.Remove{Cluster: "j-1", Path: "/dropped", File: 19},
	}
}

func mapTask(index int) state.TaskID { return state.TaskID{Kind: state.Map, Index: index} }
func reduce(index int) state.TaskID  { return state.TaskID{Kind: state.Reduce, Index: index} }

// term stands in for a segment's term in the digest of what reduces consume.
func term(digest uint64) uint64 { return digest * 0x9e3779b97f4a7c15 }

func mapWin(job string, index int, attempt string, digest uint64, l state.Ledger) state.EndTask {
	return state.EndTask{Job: job, Task: mapTask(index), Speculative: index == 1, Win: &state.Completion{
		Attempt: attempt, Node: "i-t1", SegmentNode: "i-c1", Digest: digest, SetTerm: term(digest), Ledger: l,
		Counters: []state.Counter{{Group: "millrace", Name: "mapInputRecords", Value: 5}}, InputBytes: 100, StartedAt: at(12), EndedAt: at(13),
	}}
}

func reduceWin(job string, index int, attempt, upload string, set uint64, l state.Ledger) state.EndTask {
	return state.EndTask{Job: job, Task: reduce(index), Win: &state.Completion{
		Attempt: attempt, Node: "i-c1", Digest: set, Ledger: l, Counters: []state.Counter{{Group: "mine", Name: "words", Value: -2}},
		UploadID: upload, Records: 2, Bytes: 20, Parts: 1, StartedAt: at(14), EndedAt: at(15),
	}}
}

func ended(job string, task state.TaskID, attempt, counts string) state.EndTask {
	return state.EndTask{Job: job, Task: task, CountsAs: counts, Ended: &state.EndedAttempt{
		Attempt: attempt, Node: "i-t1", StartedAt: at(12), EndedAt: at(13), Failure: *failure(),
	}}
}

func failure() *state.Failure {
	return &state.Failure{
		Task: "m-0", Attempt: "m0-0", Node: "i-t1", Message: "exit code 3, <why> 語", ExitCode: 3, Signal: "SIGKILL",
		Input: "s3://in/a/1", Offset: 1 << 33, StderrTail: "Traceback\n\x00",
	}
}
