package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"path"
	"time"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
	"millrace/pkg/objectstore"
)

const (
	mostActions   = 16      // bootstrap actions of a cluster
	mostScript    = 1 << 20 // bytes of one's script
	mostArguments = 32 << 10
	longestAction = 24 * time.Hour
)

// checkActions reads the scripts of bootstrap actions, and records what they are now: every node runs that, or nothing.
func (s *Server) checkActions(ctx context.Context, v *state.View, asked []*api.BootstrapAction, found *findings) (actions []state.BootstrapAction, err error) {
	if len(asked) == 0 {
		return nil, nil
	}
	if len(asked) > mostActions {
		found.wrong("put them into one script", "a cluster has at most %d bootstrap actions, not %d", mostActions, len(asked))
		return nil, nil
	}
	store, settings, err := s.siteStore(v)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	for _, a := range asked {
		action := state.BootstrapAction{Name: a.Name, URL: a.Url, Args: a.Args, TimeoutMs: a.TimeoutMs}
		u, ok := found.action(&action)
		if !ok {
			continue
		}
		script, err := readScript(ctx, store, u)
		found.script(ctx, settings.GetEndpoint(), &action, script, err)
		if a.Sha256 != "" && action.SHA256 != "" && a.Sha256 != action.SHA256 {
			found.wrong("", "bootstrap action %s: its script has another SHA-256 (%.12s…) than was given (%.12s…)", a.Url, action.SHA256, a.Sha256)
		}
		actions = append(actions, action)
	}
	return actions, nil
}

// action finds what is wrong with a bootstrap action but for its script.
func (f *findings) action(a *state.BootstrapAction) (objectstore.URL, bool) {
	u, err := objectstore.ParseS3(a.URL)
	if err != nil || u.Key == "" {
		f.wrong("--bootstrap-action s3://BUCKET/KEY[,ARG…]", "bootstrap action %q: its script is an object in the site's store, s3://BUCKET/KEY", a.URL)
		return u, false
	}
	if a.Name == "" {
		a.Name = path.Base(u.Key)
	}
	n := 0
	for _, arg := range a.Args {
		n += len(arg)
	}
	if n > mostArguments {
		f.wrong("put them into the script", "bootstrap action %s: its arguments have %d bytes, more than %d", a.URL, n, mostArguments)
	}
	if a.TimeoutMs < 0 || a.TimeoutMs > longestAction.Milliseconds() {
		f.wrong("", "bootstrap action %s: its time limit is between 1ms and %s", a.URL, longestAction)
	}
	return u, true
}

// readScript reads a script, and one byte of one that is too long.
func readScript(ctx context.Context, store objectstore.Store, u objectstore.URL) ([]byte, error) {
	body, err := store.Get(ctx, u.Bucket, u.Key, 0, -1, "")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, mostScript+1))
}

// script takes the sum of an action's script, or says why it will not do.
func (f *findings) script(ctx context.Context, endpoint string, a *state.BootstrapAction, script []byte, err error) {
	const next = "upload it: millrace fs put FILE URL; or name a local file"
	switch {
	case errors.Is(err, objectstore.ErrNoSuchBucket):
		f.wrong(next, "bootstrap action %s: there is no such bucket", a.URL)
	case errors.Is(err, objectstore.ErrNotExist):
		f.wrong(next, "bootstrap action %s: there is no such object", a.URL)
	case err != nil:
		f.trouble(ctx, endpoint, &placeError{"bootstrap action " + a.URL, err})
	case len(script) == 0:
		f.wrong(next, "bootstrap action %s: its script is empty", a.URL)
	case len(script) > mostScript:
		f.wrong("have the script fetch what is big", "bootstrap action %s: its script has more than %s", a.URL, bytesize.Format(mostScript))
	default:
		sum := sha256.Sum256(script)
		a.SHA256 = hex.EncodeToString(sum[:])
	}
}

func actionsView(list []state.BootstrapAction) (views []*api.BootstrapAction) {
	for _, a := range list {
		views = append(views, &api.BootstrapAction{Name: a.Name, Url: a.URL, Args: a.Args, Sha256: a.SHA256, TimeoutMs: a.TimeoutMs})
	}
	return views
}
