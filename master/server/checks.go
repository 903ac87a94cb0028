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

	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// mistake is one thing wrong with a job, and what to do about it.
type mistake struct{ text, next string }

// peek is how many names a check looks at before it looks at all.
const peek = 1000

// checkStores asks the store, at once, all that must be right before a job is logged.
func (s *Server) checkStores(ctx context.Context, v *state.View, spec *api.JobSpec) error {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	store, settings, err := s.jobStore(v, spec)
	if err != nil {
		return err
	}
	checks := []func() ([]mistake, error){
		func() ([]mistake, error) { return checkOutput(ctx, store, spec) },
		func() ([]mistake, error) { return s.checkFiles(ctx, v, spec) },
	}
	for _, in := range spec.Input {
		checks = append(checks, func() ([]mistake, error) { return checkInput(ctx, store, in) })
	}
	found := make([][]mistake, len(checks))
	errs := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { found[i], errs[i] = check() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				err = fmt.Errorf("%w: no answer within %s", objectstore.ErrUnreachable, checkWithin)
			}
			return fmt.Errorf("object store %s: %w", settings.GetEndpoint(), err)
		}
	}
	return mistakesOf(slices.Concat(found...))
}

// mistakesOf makes one problem of them; each advice is given once.
func mistakesOf(found []mistake) error {
	if len(found) == 0 {
		return nil
	}
	var texts, nexts []string
	for _, m := range found {
		if !slices.Contains(texts, m.text) {
			texts = append(texts, m.text)
		}
		if m.next != "" && !slices.Contains(nexts, m.next) {
			nexts = append(nexts, m.next)
		}
	}
	return usage(strings.Join(nexts, "; "), texts...)
}

// checkInput finds out whether an input matches anything, from the first names if they will do.
func checkInput(ctx context.Context, store objectstore.Store, in string) ([]mistake, error) {
	first := &peeking{Lister: store}
	_, err := input.List(ctx, first, []string{in})
	var none *input.NoMatchError
	if errors.As(err, &none) && first.cut {
		_, err = input.List(ctx, store, []string{in})
	}
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &none):
		return []mistake{{"input " + in + " matches nothing", "millrace fs ls " + parent(in) + " shows what is there"}}, nil
	case errors.Is(err, objectstore.ErrNoSuchBucket):
		return noBucket(ctx, store, "input", in, false)
	case isStoreTrouble(err):
		return nil, fmt.Errorf("list input %s: %w", in, err)
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
func checkOutput(ctx context.Context, store objectstore.Store, spec *api.JobSpec) ([]mistake, error) {
	u, err := objectstore.ParseURL(spec.Output)
	if err != nil {
		return []mistake{{err.Error(), ""}}, nil
	}
	limit := peek + 1
	if spec.Overwrite {
		limit = 1
	}
	n := 0
	for _, err := range store.List(ctx, u.Bucket, u.Key, objectstore.ListOptions{Max: limit}) {
		switch {
		case errors.Is(err, objectstore.ErrNoSuchBucket):
			return noBucket(ctx, store, "output", spec.Output, true)
		case err != nil:
			return nil, fmt.Errorf("list output %s: %w", spec.Output, err)
		}
		n++
	}
	if n == 0 || spec.Overwrite {
		return nil, nil
	}
	count := fmt.Sprintf("%d objects", n)
	switch {
	case n == 1:
		count = "1 object"
	case n > peek:
		count = fmt.Sprintf("more than %d objects", peek)
	}
	return []mistake{{fmt.Sprintf("output %s is not empty (%s)", spec.Output, count), "choose another --output, or add --overwrite"}}, nil
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
	best, distance := "", max(2, len(name)/3)+1
	for _, b := range buckets {
		if d := levenshtein.ComputeDistance(name, b.Name); d < distance {
			best, distance = b.Name, d
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
	if o.Max == 0 || o.Max > peek {
		o.Max = peek
	}
	return func(yield func(objectstore.Object, error) bool) {
		n := 0
		for object, err := range p.Lister.List(ctx, bucket, prefix, o) {
			if n++; n >= peek {
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
