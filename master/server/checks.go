package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/agnivade/levenshtein"

	"millrace/jobs"
	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// peek is how many names a check looks at before it looks at all.
const peek = 1000

// checkPlaces asks the log, the store and the nodes, at once, all that must be right about
// a job's places before it is logged. What the spec shows to be wrong is not asked for. c is
// the job's cluster, nil if it has none; files: what it ships must have been uploaded. An error is one of the master's own.
func (s *Server) checkPlaces(ctx context.Context, v *state.View, l *Leader, c *state.Cluster, spec *api.JobSpec, files bool, found *findings) error {
	inputs, output := jobs.Askable(spec)
	found.reserved(v, output)
	store, settings, err := s.jobStore(v, spec)
	if p := new(problem); errors.As(err, &p) {
		found.wrong(p.next, "%s", strings.Join(p.errs, "; "))
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var checks []func() ([]mistake, error)
	if output != "" {
		checks = append(checks, func() ([]mistake, error) { return checkOutput(ctx, store, output, spec.Overwrite) },
			func() ([]mistake, error) { return nil, checkWritable(ctx, store, output) })
	}
	for _, in := range inputs {
		checks = append(checks, func() ([]mistake, error) { return checkInput(ctx, store, in) })
	}
	if files {
		checks = append(checks, func() ([]mistake, error) { return s.checkFiles(ctx, v, spec) })
	}
	mistakes := make([][]mistake, len(checks))
	errs := make([]error, len(checks))
	var silent []unreached
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { mistakes[i], errs[i] = check() })
	}
	if c != nil && len(checks) > 0 {
		wg.Go(func() {
			silent = s.reach.ask(ctx, l.Sessions, c.ID, settings, bucketOf(slices.Concat(inputs, []string{output})))
		})
	}
	wg.Wait()
	found.mistakes = append(found.mistakes, slices.Concat(mistakes...)...)
	for _, err := range errs {
		found.trouble(ctx, settings.GetEndpoint(), err)
	}
	if c != nil {
		found.unreached(v, settings.GetEndpoint(), l.Sessions.Nodes(), c.ID, silent)
	}
	return nil
}

// bucketOf is the bucket of the first place that has one.
func bucketOf(places []string) string {
	for _, p := range places {
		if u, err := objectstore.ParseURL(p); err == nil {
			return u.Bucket
		}
	}
	return ""
}

// checkInput finds out whether an input matches anything, from the first names if they will do.
func checkInput(ctx context.Context, store objectstore.Store, in string) ([]mistake, error) {
	first := &peeking{Lister: store}
	_, err := input.List(ctx, first, []string{in})
	var none *input.NoMatchError
	if errors.As(err, &none) && first.cut {
		whole, cancel := context.WithTimeout(ctx, checkWithin/2)
		defer cancel()
		_, err = input.List(whole, store, []string{in})
		if whole.Err() != nil && ctx.Err() == nil {
			return nil, nil // too much to look through while somebody waits: the plan will say
		}
	}
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &none):
		return []mistake{{"input " + in + " matches nothing", "millrace fs ls " + parent(in) + " shows what is there"}}, nil
	case errors.Is(err, objectstore.ErrNoSuchBucket):
		return noBucket(ctx, store, "input", in, false)
	case isStoreTrouble(err):
		return nil, &placeError{"input " + in, err}
	}
	return []mistake{{"input " + in + ": " + err.Error(), ""}}, nil
}

// parent is the folder to look into when a name or pattern matches nothing.
func parent(in string) string {
	in = strings.TrimSuffix(in, "/")
	if i := strings.IndexAny(in, "*?[{"); i >= 0 {
		in = in[:i]
	}
	if i := strings.LastIndexByte(in, '/'); i > len("s3://") {
		return in[:i+1]
	}
	return in
}

// checkOutput makes sure that the output's bucket is there and its prefix empty.
func checkOutput(ctx context.Context, store objectstore.Store, output string, overwrite bool) ([]mistake, error) {
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return []mistake{{err.Error(), ""}}, nil
	}
	limit := peek + 1
	if overwrite {
		limit = 1
	}
	n := 0
	for _, err := range store.List(ctx, u.Bucket, u.Key, objectstore.ListOptions{Max: limit}) {
		switch {
		case errors.Is(err, objectstore.ErrNoSuchBucket):
			return noBucket(ctx, store, "output", output, true)
		case err != nil:
			return nil, &placeError{"output " + output, err}
		}
		n++
	}
	if n == 0 || overwrite {
		return nil, nil
	}
	count := fmt.Sprintf("%d objects", n)
	switch {
	case n == 1:
		count = "1 object"
	case n > peek:
		count = fmt.Sprintf("more than %d objects", peek)
	}
	return []mistake{{fmt.Sprintf("output %s is not empty (%s)", output, count), "choose another --output, or add --overwrite"}}, nil
}

// checkWritable finds out whether the key may write to the output, and leaves nothing there whatever
// comes of it: a part of an upload that does not exist is refused in any case, but to whom
// may not write for that reason.
func checkWritable(ctx context.Context, store objectstore.Store, output string) error {
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return nil
	}
	_, err = store.UploadPart(ctx, u.Bucket, u.Key+"part-00000", "no-such-upload", 1, []byte("x"))
	if errors.Is(err, objectstore.ErrDenied) {
		return &placeError{"output " + output, err}
	}
	return nil // that it is away, or has no such bucket, others find and say better
}

// noBucket names the bucket that was probably meant.
func noBucket(ctx context.Context, store objectstore.Store, what, where string, create bool) ([]mistake, error) {
	u, err := objectstore.ParseURL(where)
	if err != nil {
		return []mistake{{err.Error(), ""}}, nil
	}
	m := mistake{text: fmt.Sprintf("%s %s: no such bucket: %s", what, where, u.Bucket)}
	if create {
		m.next = "millrace fs mb s3://" + u.Bucket
	} else {
		m.next = "millrace fs ls s3:// shows the buckets"
	}
	buckets, err := store.ListBuckets(ctx)
	if err != nil { // not every key may list buckets: the suggestion is all that is lost
		return []mistake{m}, nil
	}
	if near := nearest(u.Bucket, buckets); near != "" {
		m.text += ": did you mean " + near + "?"
	}
	return []mistake{m}, nil
}

// nearest is the most similar bucket name, if it is similar at all.
func nearest(name string, buckets []objectstore.Bucket) string {
	names := make([]string, len(buckets))
	for i, b := range buckets {
		names[i] = b.Name
	}
	return nearestName(name, names)
}

func nearestName(name string, names []string) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(name, n); d < distance && d < len(name) {
			best, distance = n, d
		}
	}
	return best
}

// checkFiles makes sure that the job's program and files have been uploaded.
func (s *Server) checkFiles(ctx context.Context, v *state.View, spec *api.JobSpec) ([]mistake, error) {
	files := slices.Clone(spec.GetProgram().GetFiles())
	if e := spec.GetProgram().GetExecutable(); e != nil {
		files = append(files, e)
	}
	if len(files) == 0 {
		return nil, nil
	}
	sums := make([]string, len(files))
	for i, f := range files {
		sums[i] = f.Sha256
	}
	missing, err := s.missing(ctx, v, sums)
	if err != nil {
		return nil, err
	}
	var found []mistake
	for _, f := range files {
		if slices.Contains(missing, f.Sha256) {
			found = append(found, mistake{fmt.Sprintf("file %s (%.12s…) has not been uploaded", f.Name, f.Sha256), "submit again: the command line uploads what is missing"})
		}
	}
	return found, nil
}

// peeking is a Lister that stops each listing after peek names, and says that it did.
type peeking struct {
	input.Lister
	mu  sync.Mutex
	cut bool
}

func (p *peeking) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	if o.Max == 0 || o.Max >= peek {
		o.Max = peek - 1 // no full page, after which a listing may split
	}
	return func(yield func(objectstore.Object, error) bool) {
		n := 0
		for object, err := range p.Lister.List(ctx, bucket, prefix, o) {
			if n++; n >= peek-1 {
				p.mu.Lock()
				p.cut = true
				p.mu.Unlock()
			}
			if !yield(object, err) {
				return
			}
		}
	}
}
