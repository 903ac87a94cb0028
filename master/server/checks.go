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
	id := clusterIDs(v, c)
	inputs, output := jobs.Askable(spec, id)
	inputs, output = found.clusters(v, c, inputs, output)
	found.reserved(v, output, id)
	store, settings, err := s.jobStore(v, c, spec)
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
		checks = append(checks, func() ([]mistake, error) { return checkOutput(ctx, store, output, spec.Overwrite || jobs.Copies(spec)) })
		if onFiles(output) {
			checks = append(checks, func() ([]mistake, error) { return checkFolder(ctx, store, output) })
		} else {
			checks = append(checks, func() ([]mistake, error) { return checkWritable(ctx, store, spec, output) })
			if spec.Overwrite {
				checks = append(checks, func() ([]mistake, error) { return checkBucket(ctx, store, output) })
			}
		}
	}
	for _, in := range inputs {
		checks = append(checks, func() ([]mistake, error) { return checkInput(ctx, store, in, spec.InputFormat) })
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
	if bucket := bucketOf(slices.Concat(inputs, []string{output})); c != nil && bucket != "" {
		wg.Go(func() { silent = s.reach.ask(ctx, l.Sessions, c.ID, settings, bucket) })
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

// bucketOf is the bucket of the first place that is in an object store; "" if there is none.
func bucketOf(places []string) string {
	for _, p := range places {
		if u, err := objectstore.ParseURL(p); err == nil && !objectstore.IsHDFS(u.Bucket) {
			return u.Bucket
		}
	}
	return ""
}

// checkInput finds out whether an input matches anything, from the first names if they will do.
func checkInput(ctx context.Context, store objectstore.Store, in, format string) ([]mistake, error) {
	first := &peeking{Lister: store}
	_, err := input.ListFor(ctx, first, []string{in}, format)
	var none *input.NoMatchError
	if errors.As(err, &none) && first.cut {
		whole, cancel := context.WithTimeout(ctx, checkWithin/2)
		defer cancel()
		_, err = input.ListFor(whole, store, []string{in}, format)
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
	return []mistake{{err.Error(), ""}}, nil // it names the input
}

// parent is the folder to look into when a name or pattern matches nothing.
func parent(in string) string {
	in = strings.TrimSuffix(in, "/")
	if i := strings.IndexAny(in, "*?[{"); i >= 0 {
		in = in[:i]
	}
	scheme, rest, _ := strings.Cut(in, "://")
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		rest = rest[:i+1]
	}
	return scheme + "://" + rest
}

// checkOutput makes sure that the output's bucket is there and its prefix empty, unless what is there may be.
func checkOutput(ctx context.Context, store objectstore.Store, output string, filled bool) ([]mistake, error) {
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return []mistake{{err.Error(), ""}}, nil
	}
	limit := peek + 1
	if filled {
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
	if n == 0 || filled {
		return nil, nil
	}
	count := fmt.Sprintf("%d objects", n)
	switch {
	case n == 1:
		count = "1 object"
	case n > peek:
		count = fmt.Sprintf("more than %d objects", peek)
	}
	next := "choose another output, or add --overwrite"
	if u.Key == "" {
		next = "name a folder in it: " + strings.TrimSuffix(output, "/") + "/NAME/"
	}
	return []mistake{{fmt.Sprintf("output %s is not empty (%s)", output, count), next}}, nil
}

// checkBucket refuses to have a result replace a whole bucket in which there is more than a result: that has no folders.
func checkBucket(ctx context.Context, store objectstore.Store, output string) ([]mistake, error) {
	u, err := objectstore.ParseURL(output)
	if err != nil || u.Key != "" {
		return nil, nil
	}
	for o, err := range store.List(ctx, u.Bucket, "", objectstore.ListOptions{Delimiter: true}) {
		if errors.Is(err, objectstore.ErrNoSuchBucket) {
			return nil, nil // checkOutput says it
		}
		if err != nil { // what was not looked at may be anything
			return nil, &placeError{"output " + output, err}
		}
		if o.Prefix {
			return []mistake{{fmt.Sprintf("output %s is a whole bucket, and there is more in it than a result (%s): --overwrite would delete all of it", output, o.Key),
				"name a folder in it: " + strings.TrimSuffix(output, "/") + "/NAME/"}}, nil
		}
	}
	return nil, nil
}

// checkWritable finds out whether the key may write to the output and the store takes such names, and leaves
// nothing there whatever comes of it: a part of an upload that does not exist is refused in any case, but to
// whom may not write for that reason, and where the name cannot be for that one.
func checkWritable(ctx context.Context, store objectstore.Store, spec *api.JobSpec, output string) ([]mistake, error) {
	u, err := objectstore.ParseURL(output)
	if err != nil {
		return nil, nil // that is said already
	}
	key := u.Key
	if key != "" && !strings.HasSuffix(key, "/") {
		key += "/"
	}
	key += jobs.PartName(spec, state.Reduce[0], 999_999) // as long as the longest
	_, err = store.UploadPart(ctx, u.Bucket, key, "no-such-upload", 1, []byte("x"))
	switch {
	case errors.Is(err, objectstore.ErrDenied):
		return nil, &placeError{"output " + output, err}
	case isBadName(err):
		return []mistake{{fmt.Sprintf("output %s: the store takes no such names as %s: %v", output, key, err), "choose another output"}}, nil
	}
	return nil, nil // that it is away, or has no such bucket, others find and say better
}

// isBadName says whether a request was refused for its key, by us or by the store.
func isBadName(err error) bool {
	var e *objectstore.Error
	if !errors.As(err, &e) || !errors.Is(e.Kind, objectstore.ErrInvalid) {
		return false
	}
	switch e.Code {
	case "KeyTooLongError", "XMinioInvalidObjectName", "XMinioInvalidResourceName", "InvalidURI":
		return true
	}
	return e.Status == 0 // it was not even sent
}

// noBucket names the bucket that was probably meant.
func noBucket(ctx context.Context, store objectstore.Store, what, where string, create bool) ([]mistake, error) {
	u, err := objectstore.ParseURL(where)
	if err != nil {
		return []mistake{{err.Error(), ""}}, nil
	}
	if cluster, ok := strings.CutPrefix(u.Bucket, objectstore.HDFS); ok {
		return []mistake{{fmt.Sprintf("%s %s: no such cluster: %s", what, where, cluster), "millrace cluster list"}}, nil
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
