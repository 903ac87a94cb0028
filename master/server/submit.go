package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"millrace/jobs"
	"millrace/jobs/builtin"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// checkWithin bounds how long a submit waits for the object store.
const checkWithin = 30 * time.Second

// maxSpec bounds a job's description, which becomes one entry of the log with its inputs in it
// twice: an entry delays heartbeats when it grows to half a megabyte.
const maxSpec = 128 << 10 // bytes

// SubmitJob checks a job and names all mistakes at once, those that can be told from the spec beside
// those that the log, the store and the nodes know of; then one entry of the log makes it PENDING.
func (s *millraceService) SubmitJob(ctx context.Context, req *connect.Request[api.SubmitJobRequest]) (*connect.Response[api.Job], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if req.Msg.Spec == nil {
		return nil, usage("", "the request has no job")
	}
	spec := proto.Clone(req.Msg.Spec).(*api.JobSpec)
	jobs.Normalize(spec)
	user := callOf(ctx).caller.ID
	var found findings
	c, ok := v.Cluster(spec.Cluster)
	if !ok {
		c = nil
	}
	if !req.Msg.PlacesOnly {
		found.spec(spec, clusterIDs(v, c))
	}
	if ok {
		found.memory(spec.MemoryBytes, s.largest(ctx, v, l, c.ID, spec.MemoryBytes))
	}
	if !ok {
		found.wrong("millrace cluster list", "no such cluster: %s", spec.Cluster)
	} else if c.Ending() {
		found.wrong("millrace cluster list names those that take jobs", "cluster %s is %s: it takes no jobs", c.Name, c.State)
	} else if len(found.mistakes) == 0 && !req.Msg.DryRun {
		// Before the store is looked at: the first one's output would be in the way of its repetition.
		if id := submittedBefore(v, c.ID, user, spec.RequestId); id != "" && req.Msg.PlacesOnly {
			return connect.NewResponse(&api.Job{}), nil // what it is answered with is for the whole of it to say
		} else if id != "" {
			return s.repeated(ctx, l, id, spec)
		}
	}
	if req.Msg.DryRun && spec.Program != nil { // its files are uploaded when it is to be started
		spec.Program.Files, spec.Program.Executable = nil, nil
	}
	if err := s.checkPlaces(ctx, v, l, c, spec, !req.Msg.PlacesOnly, &found); err != nil {
		return nil, err
	}
	if err := found.refusal(); err != nil {
		// Or while it was looked at: of requests that come at once, one is the first.
		if c != nil && !req.Msg.DryRun && !req.Msg.PlacesOnly {
			if id := submittedBefore(s.cfg.View(), c.ID, user, spec.RequestId); id != "" {
				return s.repeated(ctx, l, id, spec)
			}
		}
		return nil, err
	}
	switch {
	case req.Msg.PlacesOnly:
		return connect.NewResponse(&api.Job{}), nil
	case req.Msg.DryRun:
		job, err := s.dryRun(ctx, v, l, c, spec)
		if err != nil {
			return nil, err
		}
		job.User = user
		return connect.NewResponse(job), nil
	}
	record, err := s.jobRecord(spec, c.ID, user, clusterIDs(v, c))
	if err != nil {
		return nil, err
	}
	result, err := s.cfg.Log.Apply(ctx, state.SubmitJob{Job: *record})
	if err != nil {
		return nil, fmt.Errorf("submit job: %w", err)
	}
	j, ok := result.(*state.Job)
	if !ok {
		return nil, fmt.Errorf("submit job: the log answered %T", result)
	}
	if j.ID != record.ID {
		return s.repeated(ctx, l, j.ID, spec)
	}
	l.Tracker.Submitted(j.ID)
	return connect.NewResponse(l.view(j)), nil
}

// spec finds every mistake that the spec alone shows, and fills in what a program decides.
func (f *findings) spec(spec *api.JobSpec, id jobs.Clusters) {
	const next = "millrace job submit --help shows the flags, millrace job programs the programs"
	for _, err := range jobs.ValidateIn(spec, id) {
		f.wrong(nextOf(err, next), "%s", err)
	}
	if p := spec.GetProgram(); p.GetKind() == api.ProgramKind_PROGRAM_KIND_BUILTIN && p.GetName() != "" {
		mapOnly, err := builtin.Check(p.GetName(), p.GetArgs())
		switch {
		case err != nil:
			f.wrong(next, "%s", err)
		case mapOnly && spec.GetReduces() > 0:
			f.wrong(next, "program %s has no reducer: --reduces can only be 0, not %d", p.GetName(), spec.GetReduces())
		case mapOnly:
			spec.MapOnly = true
		}
	}
	if spec.Reduces != nil && *spec.Reduces == 0 {
		spec.MapOnly = true
	}
	if spec.MapOnly && spec.Reduces == nil {
		spec.Reduces = proto.Int32(0)
	}
}

// nextOf is what to do about an error that says it itself, else what is given.
func nextOf(err error, otherwise string) string {
	var overlap *jobs.OverlapError
	if errors.As(err, &overlap) {
		return overlap.Next()
	}
	return otherwise
}

// submittedBefore finds the job that a request id has made; "" if none.
func submittedBefore(v *state.View, cluster, user, requestID string) string {
	if requestID == "" {
		return ""
	}
	if e, ok := v.JobOfRequest(cluster, user, requestID); ok {
		return e.Brief().ID
	}
	return ""
}

// repeated answers a request whose id has made a job before: that job, if it is the one that was asked for.
func (s *Server) repeated(ctx context.Context, l *Leader, id string, spec *api.JobSpec) (*connect.Response[api.Job], error) {
	j, err := s.jobByID(ctx, s.cfg.View(), id)
	if err != nil {
		return nil, err
	}
	first := &api.JobSpec{}
	if err := proto.Unmarshal(j.Spec, first); err != nil {
		return nil, fmt.Errorf("read the description of %s: %w", j.ID, err)
	}
	again := proto.Clone(spec).(*api.JobSpec)
	again.Store, again.Cluster = nil, first.Cluster // the store is logged apart, sealed; the cluster is the same
	if differs := differences(first, again); len(differs) > 0 {
		return nil, usage("use another --request-id for another job, or millrace job show "+j.ID,
			fmt.Sprintf("request id %q has made job %s, with another %s", spec.RequestId, j.ID, strings.Join(differs, ", ")))
	}
	return connect.NewResponse(l.view(j)), nil
}

// differences names the fields in which two descriptions of a job differ, as job files do.
func differences(a, b *api.JobSpec) (names []string) {
	fields := a.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !a.ProtoReflect().Get(f).Equal(b.ProtoReflect().Get(f)) {
			names = append(names, f.JSONName())
		}
	}
	return names
}

// jobRecord is the job as logged: no key of a store in the clear, and places as the whole site knows them. What was
// typed is in its spec.
func (s *Server) jobRecord(spec *api.JobSpec, cluster, user string, id jobs.Clusters) (*state.Job, error) {
	number, err := NewID("s-")
	if err != nil {
		return nil, err
	}
	j := &state.Job{
		ID: number, Cluster: cluster, Name: spec.Name, Program: programName(spec.Program), User: user, RequestID: spec.RequestId,
		Output: jobs.Anchored(spec.Output, id), Overwrite: spec.Overwrite, Priority: int(spec.Priority),
		SubmittedAt: s.cfg.Now().UTC(),
	}
	for _, in := range spec.Input {
		j.Input = append(j.Input, jobs.Anchored(in, id))
	}
	if j.Name == "" {
		j.Name = j.Program
	}
	if spec.Store != nil {
		plain, err := proto.Marshal(spec.Store)
		if err != nil {
			return nil, fmt.Errorf("encode job's store: %w", err)
		}
		if j.SealedStore, err = s.cfg.Seal.Seal(plain); err != nil {
			return nil, err
		}
		spec.Store = nil
	}
	if j.Spec, err = proto.Marshal(spec); err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	if n := len(j.Spec) + len(j.SealedStore); n > maxSpec {
		return nil, usage("name inputs by prefix or pattern, put long arguments into a --file",
			fmt.Sprintf("the job's description has %d bytes, more than %d", n, maxSpec))
	}
	return j, nil
}

// programName is what people call the program.
func programName(p *api.Program) string {
	switch {
	case p.GetName() != "":
		return p.GetName()
	case p.GetMapper() != "":
		return p.GetMapper()
	}
	return "streaming"
}

// siteStore opens the site's object store.
func (s *Server) siteStore(v *state.View) (objectstore.Store, *api.ObjectStore, error) {
	site, ok := v.Site()
	if !ok {
		return nil, nil, errNoLeader
	}
	plain, err := s.cfg.Seal.Open(site.SealedStore)
	if err != nil {
		return nil, nil, fmt.Errorf("site's object store: %w", err)
	}
	settings := &api.ObjectStore{}
	if err := proto.Unmarshal(plain, settings); err != nil {
		return nil, nil, fmt.Errorf("site's object store: %w", err)
	}
	store, err := s.cfg.Stores.Open(settings)
	return store, settings, err
}

// jobStore opens what a job of a cluster reads and writes: an object store, whose settings it gives, and beside it the
// block stores of the site's clusters. c may be nil.
func (s *Server) jobStore(v *state.View, c *state.Cluster, spec *api.JobSpec) (objectstore.Store, *api.ObjectStore, error) {
	var store objectstore.Store
	var err error
	settings := spec.Store
	if settings == nil {
		store, settings, err = s.siteStore(v)
	} else if store, err = s.cfg.Stores.Open(settings); err != nil {
		err = usage("check the job's store settings", err.Error())
	}
	if err != nil {
		return nil, nil, err
	}
	if c != nil {
		store = s.cfg.Stores.WithFiles(store, c.ID)
	}
	return store, settings, nil
}
