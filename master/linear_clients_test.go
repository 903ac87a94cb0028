package master

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/anishathalye/porcupine"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

const (
	// How many things the clients make: what is looked at often tells more than what is many.
	mostTokens = 40
	mostJobs   = 16
	// mostUnclear bounds the calls without an answer to one thing: the check tries every subset of them.
	mostUnclear = 4
	// breath is how long a client that was refused waits before it goes on.
	breath = 20 * time.Millisecond
)

// client calls one master after another until ctx ends.
func (w *watchers) client(ctx context.Context, id int) {
	r := rand.New(rand.NewPCG(w.seed, uint64(id)))
	for ctx.Err() == nil {
		apis := *w.apis.Load()
		c := call{w: w, client: id, ctx: ctx, api: apis[r.IntN(len(apis))]}
		switch what := r.IntN(20); {
		case what < 2:
			c.createToken()
		case what < 3:
			c.revokeToken(r)
		case what < 9:
			c.listTokens()
		case what < 11:
			c.submit(r)
		case what < 12:
			c.cancel(r)
		case what < 16:
			c.getJob(r)
		default:
			c.listJobs()
		}
	}
}

// call is one call of a client.
type call struct {
	w      *watchers
	client int
	ctx    context.Context
	api    apiconnect.MillraceServiceClient
}

func (w *watchers) now() int64 { return time.Since(w.began).Nanoseconds() }

// seen notes what one call, which began then, did to or showed of some objects.
func (c call) seen(began int64, op string, what map[string]opOutput) {
	now := c.w.now()
	c.w.calls.Add(1)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for key, out := range what {
		back := now
		if out.unclear {
			back = never
		}
		c.w.all = append(c.w.all, porcupine.Operation{ClientId: c.client, Input: opInput{key, op}, Call: began, Output: out, Return: back})
	}
}

// lost notes that a call that changes something got no answer that says whether it did. Of a read without an answer there is nothing to
// say, nor of a call that a master without a leader has refused by itself.
func (c call) lost(began int64, op, key string, err error) {
	if strings.HasSuffix(err.Error(), "and none is elected yet") {
		return
	}
	c.w.unclear.Add(1)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.unsure[key]++
	c.w.all = append(c.w.all, porcupine.Operation{ClientId: c.client, Input: opInput{key, op}, Call: began, Output: opOutput{unclear: true}, Return: never})
}

// ask makes a call within its time.
func ask[Q, A any](c call, method func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q) (*A, error) {
	ctx, cancel := context.WithTimeout(c.ctx, callWithin)
	defer cancel()
	resp, err := method(ctx, connect.NewRequest(q))
	if err != nil {
		if connect.CodeOf(err) == connect.CodeUnavailable {
			time.Sleep(breath)
		}
		return nil, err
	}
	return resp.Msg, nil
}

// known gives one of the things, if its id is known; and, if it is to be changed, if not too many calls to it were lost.
func (w *watchers) known(r *rand.Rand, of *[]*thing, change bool) (thing, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(*of) == 0 {
		return thing{}, false
	}
	t := *(*of)[r.IntN(len(*of))]
	return t, t.id != "" && !(change && w.unsure[t.key] >= mostUnclear)
}

// named gives a thing its id.
func (w *watchers) named(t *thing, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.id = id
}

// createToken makes a token that can be told from all others by its number of uses.
func (c call) createToken() {
	c.w.mu.Lock()
	uses := len(c.w.tokens) + 1
	if uses > mostTokens {
		c.w.mu.Unlock()
		return
	}
	t := &thing{key: fmt.Sprint("token ", uses)}
	c.w.tokens = append(c.w.tokens, t)
	began := c.w.now()
	c.w.mu.Unlock()
	token, err := ask(c, c.api.CreateJoinToken, &api.CreateJoinTokenRequest{Role: "core", Uses: int32(uses)})
	if err != nil {
		c.lost(began, opCreate, t.key, err)
		return
	}
	c.seen(began, opCreate, map[string]opOutput{t.key: {found: true, id: token.Id}})
	c.w.named(t, token.Id)
}

func (c call) revokeToken(r *rand.Rand) {
	t, ok := c.w.known(r, &c.w.tokens, true)
	if !ok {
		return
	}
	began := c.w.now()
	_, err := ask(c, c.api.RevokeJoinToken, &api.RevokeJoinTokenRequest{Id: t.id})
	switch {
	case connect.CodeOf(err) == connect.CodeNotFound:
		c.seen(began, opEnd, map[string]opOutput{t.key: {}})
	case err != nil:
		c.lost(began, opEnd, t.key, err)
	default:
		c.seen(began, opEnd, map[string]opOutput{t.key: {found: true}})
	}
}

// absent is what a list says of the things that may exist before it says anything: of none that it is there. Those that are begun
// later are not asked about.
func (w *watchers) absent(of *[]*thing) map[string]opOutput {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := map[string]opOutput{}
	for _, t := range *of {
		what[t.key] = opOutput{}
	}
	return what
}

func (c call) listTokens() {
	what, began := c.w.absent(&c.w.tokens), c.w.now()
	list, err := ask(c, c.api.ListJoinTokens, &api.ListJoinTokensRequest{})
	if err != nil {
		return
	}
	for _, t := range list.Tokens {
		if t.UsesLeft > 0 && t.Role == "CORE" {
			what[fmt.Sprint("token ", t.UsesLeft)] = opOutput{found: true, id: t.Id}
		}
	}
	c.seen(began, opRead, what)
}

// submit makes a job, or repeats a request that somebody else has made.
func (c call) submit(r *rand.Rand) {
	c.w.mu.Lock()
	n := r.IntN(mostJobs)
	if n >= len(c.w.jobs) {
		n = len(c.w.jobs)
		c.w.jobs = append(c.w.jobs, &thing{key: fmt.Sprint("job ", n)})
	}
	t := c.w.jobs[n]
	began, enough := c.w.now(), c.w.unsure[t.key] >= mostUnclear
	c.w.mu.Unlock()
	if enough {
		return
	}
	job, err := ask(c, c.api.SubmitJob, &api.SubmitJobRequest{Spec: &api.JobSpec{
		Name: t.key, RequestId: t.key, Input: []string{"s3://data-in/"}, Output: fmt.Sprintf("s3://data-out/%d/", n),
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
	}})
	if err != nil {
		c.lost(began, opCreate, t.key, err)
		return
	}
	c.seen(began, opCreate, map[string]opOutput{t.key: jobSeen(job)})
	c.w.named(t, job.Id)
}

func jobSeen(j *api.Job) opOutput { return opOutput{found: true, id: j.Id, state: j.State} }

func (c call) cancel(r *rand.Rand) {
	t, ok := c.w.known(r, &c.w.jobs, true)
	if !ok {
		return
	}
	began := c.w.now()
	job, err := ask(c, c.api.CancelJob, &api.CancelJobRequest{Job: t.id})
	switch {
	case connect.CodeOf(err) == connect.CodeNotFound:
		c.seen(began, opEnd, map[string]opOutput{t.key: {}})
	case err != nil:
		c.lost(began, opEnd, t.key, err)
	default:
		c.seen(began, opEnd, map[string]opOutput{t.key: jobSeen(job)})
	}
}

func (c call) getJob(r *rand.Rand) {
	t, ok := c.w.known(r, &c.w.jobs, false)
	if !ok {
		return
	}
	began := c.w.now()
	job, err := ask(c, c.api.GetJob, &api.GetJobRequest{Job: t.id})
	switch {
	case connect.CodeOf(err) == connect.CodeNotFound:
		c.seen(began, opRead, map[string]opOutput{t.key: {}})
	case err == nil:
		c.seen(began, opRead, map[string]opOutput{t.key: jobSeen(job)})
	}
}

func (c call) listJobs() {
	what, began := c.w.absent(&c.w.jobs), c.w.now()
	list, err := ask(c, c.api.ListJobs, &api.ListJobsRequest{})
	if err != nil {
		return
	}
	for _, j := range list.Jobs {
		if before := what[j.Name]; before.found { // a second job of one request: whichever is reported, it is wrong
			continue
		}
		what[j.Name] = jobSeen(j)
	}
	c.seen(began, opRead, what)
}
