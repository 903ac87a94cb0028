package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/api"
)

// watchPatience is how long a job that has been seen is not given up, though no master
// answers: whoever waits for its end is served better by waiting than by an error.
const watchPatience = 30 * time.Second

// Watch yields a job now and whenever something visible changed, until its terminal state,
// and goes on at another master when a connection breaks. While no master answers for longer
// than retryFor (0: DefaultRetryFor), later than watchPatience if that is longer, or for an error of
// another kind, it yields the error and ends.
func (c *Client) Watch(ctx context.Context, req *api.GetJobRequest, retryFor time.Duration) iter.Seq2[*api.Job, error] {
	if retryFor == 0 {
		retryFor = DefaultRetryFor
	}
	return func(yield func(*api.Job, error) bool) {
		deadline, backoff := time.Now().Add(retryFor), backoffFirst
		req := &api.GetJobRequest{Job: req.GetJob(), Cluster: req.GetCluster()}
		for {
			received, stopped, err := c.watchOnce(ctx, req, yield)
			if stopped {
				return
			}
			if received {
				deadline, backoff = time.Now().Add(max(retryFor, watchPatience)), backoffFirst
			}
			wait := jitter(backoff)
			if !passing(ctx, err) || time.Now().Add(wait).After(deadline) {
				yield(nil, err)
				return
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
			backoff = min(2*backoff, backoffMost)
		}
	}
}

// watchOnce follows one stream; the job's id replaces the reference, so that
// "last" means the same job after a reconnect.
func (c *Client) watchOnce(ctx context.Context, req *api.GetJobRequest, yield func(*api.Job, error) bool) (received, stopped bool, err error) {
	stream, err := c.millrace.WatchJob(ctx, connect.NewRequest(req))
	if err != nil {
		return false, false, err
	}
	defer stream.Close()
	for stream.Receive() {
		received = true
		job := stream.Msg()
		req.Job, req.Cluster = job.GetId(), job.GetCluster()
		if !yield(job, nil) {
			return received, true, nil
		}
		switch job.GetState() {
		case "COMPLETED", "FAILED", "CANCELLED":
			return received, true, nil
		}
	}
	if err := stream.Err(); err != nil {
		return received, false, err
	}
	return received, false, connect.NewError(connect.CodeUnavailable, errors.New("the master ended the stream before the job ended"))
}
